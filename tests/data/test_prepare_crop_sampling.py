"""The index of crop sampling, as recorded from the published scripts, and the sets that use it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import parity_cases
import pytest
from layouts.cityscapes import write_cityscapes
from prepare_scripts import REPOSITORY, run_script

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.datasets import register_all_shapes, register_crop_sampling
from mask2former.data.datasets.custom import register_custom_datasets
from mask2former.data.datasets.folders import remedy
from mask2former.data.datasets.register_crop_sampling import sampling_index

CASE = parity_cases.ROOT / "ibs_crop_sampling"
PUBLISHED = "mask2former/data/datasets"


@pytest.fixture
def recorded_root(tmp_path) -> Path:
    """A copy of the folders that the published scripts were run on."""
    shutil.copytree(CASE / "data", tmp_path / "root")
    return tmp_path / "root"


def prepare(name: str, root: Path | str) -> int:
    return run_script(name, "--root", str(root), "--quiet", folder=PUBLISHED)


def assert_recorded(made: Path, expected: Path, root: str) -> None:
    files = sorted(p.relative_to(expected) for p in expected.rglob("*.json"))
    assert len(files) > 2
    for file in files:
        text = (expected / file).read_text().replace("<DETECTRON2_DATASETS>", root)
        assert (made / file).read_text() == text, file


def test_cityscapes_files_are_the_published_ones(recorded_root):
    assert prepare("prepare_cityscapes_sampling", recorded_root) == 0
    folder = recorded_root / "cityscapes"
    assert_recorded(folder, CASE / "expected" / "cityscapes", str(recorded_root))


def test_mapillary_files_are_the_published_ones(recorded_root):
    assert prepare("prepare_mapillary_sampling", recorded_root) == 0
    folder = recorded_root / "mapillary-vistas" / "training"
    assert_recorded(folder, CASE / "expected" / "mapillary", str(recorded_root))


def test_paths_stay_relative_with_a_relative_root(recorded_root, monkeypatch):
    monkeypatch.chdir(recorded_root.parent)
    assert prepare("prepare_cityscapes_sampling", "root") == 0
    folder = recorded_root / "cityscapes"
    assert_recorded(folder, CASE / "expected" / "cityscapes", "root")


def test_the_usual_folder_of_mapillary_goes_before_the_hyphenated_one(recorded_root):
    usual = recorded_root / "mapillary_vistas"
    shutil.copytree(recorded_root / "mapillary-vistas", usual)
    assert prepare("prepare_mapillary_sampling", recorded_root) == 0
    assert (usual / "training" / "images_per_class.json").exists()
    assert not (recorded_root / "mapillary-vistas" / "training" / "panoptic_json").exists()


def test_an_id_inside_another_does_not_confuse_the_files(recorded_root):
    """The published scripts search for the id anywhere in the path."""
    folder = recorded_root / "mapillary-vistas" / "training"
    for part, suffix in (("images", "jpg"), ("labels", "png"), ("panoptic", "png")):
        source = folder / part / f"img_5_0.{suffix}"
        shutil.copy(source, folder / part / f"aimg_5_0.{suffix}")
        shutil.copy(source, folder / part / f"img_5_00.{suffix}")
    assert prepare("prepare_mapillary_sampling", recorded_root) == 0
    assert_recorded(folder, CASE / "expected" / "mapillary", str(recorded_root))


def test_missing_label_maps_name_the_script_that_makes_them(tmp_path, capsys):
    write_cityscapes(tmp_path, images=2)
    assert prepare("prepare_cityscapes_sampling", tmp_path) == 2
    assert "python datasets/prepare_cityscapes.py" in capsys.readouterr().err
    options = ("--root", str(tmp_path), "--quiet", "--workers", "1", "--splits", "train")
    assert run_script("prepare_cityscapes", *options) == 0
    maps = sorted((tmp_path / "cityscapes" / "gtFine" / "train").rglob("*_labelTrainIds.png"))
    for file in maps:
        file.unlink()
    assert prepare("prepare_cityscapes_sampling", tmp_path) == 2
    message = capsys.readouterr().err
    assert f"{maps[0]} (and 1 more) is missing" in message
    assert not (tmp_path / "cityscapes" / "images_per_class_train.json").exists()


@pytest.fixture
def sampled_shapes(shapes_root, tmp_path) -> str:
    """Name of a registered copy of the tiny "shapes" whose index is made."""
    shutil.copytree(shapes_root / "shapes", tmp_path / "shapes")
    register_all_shapes(str(tmp_path), prefix="sampledshapes")
    name = "sampledshapes_panoptic_train"
    assert run_script("prepare_crop_sampling", "--dataset", name, "--quiet") == 0
    return name


def test_any_registered_panoptic_set_can_be_sampled(sampled_shapes):
    register_crop_sampling("sampled_train", sampled_shapes)
    metadata, base = MetadataCatalog.get("sampled_train"), MetadataCatalog.get(sampled_shapes)
    assert metadata.thing_classes == base.thing_classes
    assert metadata.evaluator_type == base.evaluator_type
    records = DatasetCatalog.get("sampled_train")
    index = json.loads(Path(metadata.images_per_cat_json).read_text())
    assert [r["cat_id"] for r in records] == index["cat_ids"]
    content = json.loads(Path(base.panoptic_json).read_text())
    expected = {}
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            if not segment["iscrowd"]:
                expected.setdefault(segment["category_id"], {})[annotation["image_id"]] = True
    assert index["imgs_per_cat"] == {str(c): list(images) for c, images in expected.items()}
    some = Path(metadata.json_per_img_dir) / f"{content['annotations'][0]['image_id']}.json"
    record = json.loads(some.read_text())
    assert set(record) == {"file_name", "image_id", "pan_seg_file_name", "segments_info"}
    assert os.path.isfile(record["file_name"]) and os.path.isfile(record["pan_seg_file_name"])


def test_the_validation_set_keeps_its_records(sampled_shapes):
    register_crop_sampling("sampled_val", sampled_shapes, is_train=False)
    assert DatasetCatalog.get("sampled_val") == DatasetCatalog.get(sampled_shapes)


def test_a_users_own_files_are_found_under_their_own_names(shapes_root, tmp_path, capsys):
    """Images in another format, named by ``images`` of the annotation file."""
    images = tmp_path / "pictures"
    images.mkdir()
    source = shapes_root / "shapes"
    content = json.loads((source / "annotations" / "panoptic_val.json").read_text())
    for image in content["images"]:
        name = f"drone {image['id']}.png"
        shutil.copy(source / "val" / image["file_name"], images / name)
        image["file_name"] = name
    panoptic_json = tmp_path / "mine.json"
    panoptic_json.write_text(json.dumps(content))
    shutil.copytree(source / "panoptic_val", tmp_path / "mine")
    arguments = ("--panoptic-json", str(panoptic_json), "--images", str(images), "--quiet")
    assert run_script("prepare_crop_sampling", *arguments) == 0
    index, per_image = sampling_index(str(panoptic_json))
    assert json.loads(Path(index).read_text())["cat_ids"]
    records = [json.loads(p.read_text()) for p in Path(per_image).iterdir()]
    assert {r["file_name"] for r in records} == {str(p) for p in images.iterdir()}
    shutil.rmtree(images)
    assert run_script("prepare_crop_sampling", *arguments) == 2
    assert "drone" in capsys.readouterr().err


def test_a_set_declared_in_a_config_is_trained_on_with_the_suffix(shapes_root, tmp_path):
    source = shapes_root / "shapes"
    shutil.copytree(source / "annotations", tmp_path / "annotations")
    entry = {
        "FORMAT": "coco_panoptic",
        "IMAGES": str(source / "train"),
        "ANNOTATIONS": str(tmp_path / "annotations" / "panoptic_train.json"),
        "MASKS": str(source / "panoptic_train"),
    }
    train = ("declared_cropsampling",)
    node = {"CUSTOM": {"declared": entry}, "TRAIN": train, "TEST": ()}
    arguments = ["--panoptic-json", entry["ANNOTATIONS"], "--images", entry["IMAGES"], "--quiet"]
    assert run_script("prepare_crop_sampling", *arguments, "--masks", entry["MASKS"]) == 0
    registered = register_custom_datasets(CfgNode({"DATASETS": node}))
    assert registered == ["declared", "declared_cropsampling"]
    assert all(set(r) == {"cat_id"} for r in DatasetCatalog.get("declared_cropsampling"))


@pytest.mark.parametrize("arguments", [[], ["--images", "x"], ["--dataset", "a", "--images", "x"]])
def test_either_a_name_or_files_have_to_be_given(arguments, capsys):
    if arguments[:1] == ["--dataset"]:
        arguments = [*arguments, "--panoptic-json", "y"]
    with pytest.raises(SystemExit) as error:
        run_script("prepare_crop_sampling", *arguments)
    assert error.value.code == 2
    assert "either --dataset, or --panoptic-json and --images" in capsys.readouterr().err


def test_what_is_no_panoptic_set_is_refused(capsys):
    assert run_script("prepare_crop_sampling", "--dataset", "coco_2017_train", "--quiet") == 2
    assert "no such panoptic set" in capsys.readouterr().err
    with pytest.raises(ValueError, match="coco_2017_train is not registered as a panoptic set"):
        register_crop_sampling("x", "coco_2017_train")


@pytest.mark.parametrize(
    ("base", "script"),
    [
        ("cityscapes_fine_panoptic_train", "prepare_cityscapes_sampling"),
        ("mapillary_vistas_panoptic_train", "prepare_mapillary_sampling"),
        ("coco_2017_train_panoptic", "prepare_crop_sampling"),
        ("ade20k_panoptic_train", "prepare_crop_sampling"),
    ],
)
def test_a_missing_index_names_its_script(base, script):
    name = f"{base}_cropsampling"
    if os.path.exists(MetadataCatalog.get(name).images_per_cat_json):
        pytest.skip("the data is here")
    with pytest.raises(FileNotFoundError, match=f"prepare_crop_sampling.py --dataset {base} "):
        DatasetCatalog.get(name)
    assert f"{script}.py" in remedy(name)


@pytest.mark.parametrize("script", [f"{PUBLISHED}/prepare_cityscapes_sampling.py"])
def test_the_published_script_runs_from_a_checkout_that_is_not_installed(script):
    # detectron2 is installed there, this package is not.
    code = (
        "import runpy, sys, detectron2\n"
        f"sys.path = [p for p in sys.path if p != {str(REPOSITORY)!r}]\n"
        "sys.meta_path = [f for f in sys.meta_path if 'mask2former' not in str(f)]\n"
        f"sys.argv = [{script!r}, '--help']\n"
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    elsewhere = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=REPOSITORY,
        env=elsewhere,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Cityscapes" in done.stdout


@pytest.mark.parametrize(
    ("script", "file"),
    [
        ("prepare_cityscapes_sampling", "cityscapes/gtFine/cityscapes_panoptic_train.json"),
        ("prepare_mapillary_sampling", "mapillary-vistas/training/panoptic/panoptic_2018.json"),
    ],
)
@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"images": null}',
        '{"images": [{"file_name": "a.jpg"}]}',
        '{"annotations": []}',
        '{"annotations": [{"image_id": 3, "file_name": 4, "segments_info": []}]}',
    ],
)
def test_a_strange_annotation_file_is_named(script, file, content, recorded_root, capsys):
    (recorded_root / file).write_text(content)
    assert prepare(script, recorded_root) == 2
    assert str(recorded_root / file) in capsys.readouterr().err
