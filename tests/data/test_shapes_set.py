"""The synthetic set: repeatable, complete, consistent between its three ground truths."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mask2former.data.catalogs import load_table
from mask2former.data.shapes import SceneSpec, ShapesSpec, prepare_shapes
from mask2former.data.shapes.encoding import encode_mask
from mask2former.data.shapes.scene import make_scene
from mask2former.data.shapes.writing import image_id

SCRIPT = Path(__file__).parents[2] / "datasets" / "prepare_shapes.py"
SMALL = ShapesSpec(train=3, val=2, scene=SceneSpec(min_side=48, max_side=64))


def read_ids(path: Path) -> np.ndarray:
    rgb = cv2.imread(str(path))[..., ::-1].astype(np.int64)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_arguments_make_the_same_bytes_with_any_number_of_workers(tmp_path):
    prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    prepare_shapes(tmp_path / "b", SMALL, workers=2, progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_more_pictures_do_not_change_the_first_ones(tmp_path):
    prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    prepare_shapes(tmp_path / "b", replace(SMALL, train=5), workers=1, progress=False)
    few, many = contents(tmp_path / "a" / "train"), contents(tmp_path / "b" / "train")
    assert len(many) == 5
    assert few.items() <= many.items()


def test_train_and_validation_pictures_differ(tmp_path):
    prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    train = set(contents(tmp_path / "a" / "train").values())
    assert train.isdisjoint(contents(tmp_path / "a" / "val").values())


def test_a_second_run_reuses_what_is_there(tmp_path):
    assert prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    before = (tmp_path / "a" / "manifest.json").stat().st_mtime_ns
    assert not prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    assert (tmp_path / "a" / "manifest.json").stat().st_mtime_ns == before


def test_other_arguments_replace_the_set(tmp_path):
    prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    assert prepare_shapes(tmp_path / "a", replace(SMALL, train=1), workers=1, progress=False)
    assert len(list((tmp_path / "a" / "train").iterdir())) == 1


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"no manifest\.json"):
        prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    assert contents(tmp_path / "a") == {"mine.txt": b"keep"}


def test_a_failed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("cv2.imwrite", lambda *a, **k: False)
    with pytest.raises(OSError, match="Could not write"):
        prepare_shapes(tmp_path / "a", SMALL, workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_impossible_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="min_side"):
        prepare_shapes(tmp_path / "a", ShapesSpec(scene=SceneSpec(min_side=90, max_side=80)))


@pytest.fixture(scope="module")
def annotated(shapes_root):
    """(folder, split, panoptic json, COCO index) of both splits."""
    folder = shapes_root / "shapes"
    result = []
    for split in ("train", "val"):
        annotations = folder / "annotations"
        panoptic = json.loads((annotations / f"panoptic_{split}.json").read_text())
        result.append((folder, split, panoptic, COCO(annotations / f"instances_{split}.json")))
    return result


def test_panoptic_segments_and_pixels_agree(annotated):
    for folder, split, panoptic, _ in annotated:
        for entry in panoptic["annotations"]:
            ids = read_ids(folder / f"panoptic_{split}" / entry["file_name"])
            areas = {s["id"]: s["area"] for s in entry["segments_info"]}
            found = {int(i): int((ids == i).sum()) for i in np.unique(ids) if i}
            assert found == areas
            for segment in entry["segments_info"]:
                x, y, w, h = segment["bbox"]
                rows, columns = np.nonzero(ids == segment["id"])
                assert (columns.min(), rows.min()) == (x, y)
                assert (columns.max() + 1, rows.max() + 1) == (x + w, y + h)


def test_semantic_labels_follow_the_segments(annotated):
    contiguous = {row["id"]: i for i, row in enumerate(load_table("shapes"))}
    for folder, split, panoptic, _ in annotated:
        for entry in panoptic["annotations"]:
            ids = read_ids(folder / f"panoptic_{split}" / entry["file_name"])
            expected = np.full(ids.shape, 255)
            for segment in entry["segments_info"]:
                expected[ids == segment["id"]] = contiguous[segment["category_id"]]
            path = folder / f"panoptic_semseg_{split}" / entry["file_name"]
            np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), expected)


def test_instance_masks_equal_the_panoptic_things(annotated):
    for folder, split, panoptic, coco in annotated:
        for entry in panoptic["annotations"]:
            ids = read_ids(folder / f"panoptic_{split}" / entry["file_name"])
            things = [s for s in entry["segments_info"] if s["category_id"] < 20]
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=entry["image_id"]))
            assert len(annotations) == len(things)
            for thing, annotation in zip(things, annotations):
                assert annotation["category_id"] == thing["category_id"]
                np.testing.assert_array_equal(coco.annToMask(annotation), ids == thing["id"])


def test_crowd_void_polygons_and_rle_all_occur(annotated):
    folder, split, panoptic, coco = annotated[0]
    kinds = {type(a["segmentation"]) for a in coco.anns.values() if not a["iscrowd"]}
    assert kinds == {list, dict}
    assert any(a["iscrowd"] for a in coco.anns.values())
    names = [entry["file_name"] for entry in panoptic["annotations"]]
    assert any((read_ids(folder / f"panoptic_{split}" / name) == 0).any() for name in names)


def test_image_ids_have_gaps_and_are_unique():
    ids = [image_id(split, i) for split in ("train", "val") for i in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert ids[1] - ids[0] > 1


def test_a_mask_with_a_hole_is_run_length_encoded_and_others_are_polygons():
    mask = np.zeros((12, 12), bool)
    mask[2:10, 2:10] = True
    assert encode_mask(mask) == [[2, 2, 2, 10, 10, 10, 10, 2]]
    mask[5:7, 5:7] = False
    assert set(encode_mask(mask)) == {"size", "counts"}


def run_script(*arguments: str) -> int:
    spec = importlib.util.spec_from_file_location("prepare_shapes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(list(arguments))


def test_the_script_makes_a_set_and_then_says_it_is_there(tmp_path, capsys):
    output = str(tmp_path / "shapes")
    arguments = ["--output", output, "--train", "2", "--val", "1", "--workers", "1", "--quiet"]
    assert run_script(*arguments) == 0
    assert f"Wrote 2 + 1 pictures to {output}" in capsys.readouterr().out
    assert run_script(*arguments) == 0
    assert "already" in capsys.readouterr().out


def test_the_script_writes_where_the_variable_points(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    run_script("--train", "1", "--val", "1", "--workers", "1", "--quiet")
    assert (tmp_path / "shapes" / "manifest.json").is_file()


def test_the_script_reports_bad_arguments_with_a_non_zero_exit(tmp_path, capsys):
    assert run_script("--output", str(tmp_path / "shapes"), "--train", "0") == 1
    assert "train must be at least 1" in capsys.readouterr().err


def test_the_script_explains_itself():
    command = [sys.executable, str(SCRIPT), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "examples:" in text
    assert "--seed" in text


def test_pictures_may_hold_many_objects():
    spec = SceneSpec(min_side=200, max_side=220, max_things=40, min_radius=0.03, max_radius=0.06)
    counts = [
        sum(s.is_thing for s in make_scene(np.random.default_rng(i), spec).segments)
        for i in range(6)
    ]
    assert max(counts) > 20
