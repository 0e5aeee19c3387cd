"""Cityscapes' files equal those of cityscapesscripts; Mapillary's instances mean what they say."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from cityscapesscripts.preparation import createPanopticImgs, createTrainIdLabelImgs
from layouts.cityscapes import write_cityscapes
from layouts.mapillary import write_mapillary
from PIL import Image
from prepare_scripts import run_script

from mask2former.data.catalogs import load_table
from mask2former.data.datasets.folders import mapillary_folder


def prepare(name: str, root: Path, *arguments: str) -> int:
    return run_script(name, "--root", str(root), "--quiet", "--workers", "1", *arguments)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory) -> tuple[Path, Path]:
    """The same download prepared by us and by cityscapesscripts."""
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("ours", "theirs"))
    for root in (ours, theirs):
        write_cityscapes(root, images=2)
    assert prepare("prepare_cityscapes", ours) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CITYSCAPES_DATASET", str(theirs / "cityscapes"))
        createTrainIdLabelImgs.main()
        createPanopticImgs.convert2panoptic()
    return ours, theirs


def test_cityscapes_files_equal_those_of_cityscapesscripts_byte_for_byte(cityscapes):
    contents = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in cityscapes
    ]
    names = {p.name for p in contents[0]}
    assert "cityscapes_panoptic_train.json" in names
    assert any(name.endswith("_labelTrainIds.png") for name in names)
    assert any(name.endswith("_panoptic.png") for name in names)
    assert contents[0] == contents[1]


def test_cityscapes_is_not_made_twice_and_only_where_there_is_a_split(cityscapes, capsys):
    assert prepare("prepare_cityscapes", cityscapes[0], "--splits", "val") == 0
    said = capsys.readouterr().out
    assert "0 label maps written, 2 were there" in said
    assert "nothing to do" in said


def test_a_strange_label_of_cityscapes_names_the_file(tmp_path, capsys):
    write_cityscapes(tmp_path, images=1)
    (file,) = (tmp_path / "cityscapes" / "gtFine" / "val").rglob("*_polygons.json")
    content = json.loads(file.read_text())
    content["objects"][0]["label"] = "spaceship"
    file.write_text(json.dumps(content))
    assert prepare("prepare_cityscapes", tmp_path, "--splits", "val") == 2
    assert f"{file.name} cannot be drawn" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["mapillary_vistas", "mapillary-vistas"])
def test_mapillary_instances_are_all_things_of_the_maps(tmp_path, folder):
    write_mapillary(tmp_path)
    (tmp_path / "mapillary_vistas").rename(tmp_path / folder)
    assert mapillary_folder(str(tmp_path)) == str(tmp_path / folder)
    assert prepare("prepare_mapillary_vistas_ins_seg", tmp_path) == 0
    content = json.loads((tmp_path / folder / "mapillary_vistas_instance_val.json").read_text())
    things = [row for row in load_table("mapillary_panoptic") if row["isthing"]]
    assert [(c["id"], c["name"]) for c in content["categories"]] == [
        (row["id"], row["name"]) for row in things
    ]
    assert [a["id"] for a in content["annotations"]] == list(
        range(1, 1 + len(content["annotations"]))
    )
    for image in content["images"]:
        path = tmp_path / folder / "validation" / "instances" / f"{image['id']}.png"
        coded = np.asarray(Image.open(path))
        assert coded.shape == (image["height"], image["width"])
        rebuilt = np.zeros(coded.shape, int)
        for a in content["annotations"]:
            if a["image_id"] == image["id"]:
                mask = mask_util.decode(a["segmentation"]).astype(bool)
                (value,) = np.unique(coded[mask])
                assert a["category_id"] == value // 256 + 1
                assert a["area"] == mask.sum()
                assert a["bbox"] == mask_util.toBbox(a["segmentation"]).tolist()
                rebuilt[mask] = value
        labels = {row["id"] - 1 for row in things}
        expected = np.where(np.isin(coded // 256, list(labels)), coded, 0)
        assert np.array_equal(rebuilt, expected)


def test_instance_maps_of_another_version_are_refused(tmp_path, capsys):
    write_mapillary(tmp_path)
    folder = tmp_path / "mapillary_vistas" / "training" / "instances"
    file = sorted(folder.iterdir())[0]
    Image.fromarray(np.full((96, 128), 66 * 256, np.uint16)).save(file)
    assert prepare("prepare_mapillary_vistas_ins_seg", tmp_path) == 2
    assert f"{file.name} is no instance map of version 1.2" in capsys.readouterr().err


def test_processes_do_not_change_what_is_written(tmp_path):
    made = []
    for workers in ("1", "2"):
        root = tmp_path / workers
        write_mapillary(root)
        options = ("--root", str(root), "--workers", workers, "--quiet")
        assert run_script("prepare_mapillary_vistas_ins_seg", *options) == 0
        folder = root / "mapillary_vistas"
        made.append({p.name: p.read_bytes() for p in folder.glob("mapillary_vistas_instance_*")})
    assert len(made[0]) == 2
    assert made[0] == made[1]
