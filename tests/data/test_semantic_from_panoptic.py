"""Semantic label maps from panoptic annotations, as COCO's semantic sets need them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask2former.data.catalogs import load_table
from mask2former.data.semantic_from_panoptic import write_semantic_maps

SCRIPT = (
    Path(__file__).parents[2] / "datasets" / "prepare_coco_semantic_annos_from_panoptic_annos.py"
)


def contiguous_labels(table: str) -> dict[int, int]:
    return {row["id"]: i for i, row in enumerate(load_table(table))}


@pytest.mark.parametrize("workers", [1, 2])
def test_shapes_label_maps_are_reproduced(shapes_root, tmp_path, workers):
    folder = shapes_root / "shapes"
    written = write_semantic_maps(
        folder / "annotations" / "panoptic_train.json",
        folder / "panoptic_train",
        tmp_path,
        contiguous_labels("shapes"),
        workers=workers,
        progress=False,
    )
    expected = sorted((folder / "panoptic_semseg_train").iterdir())
    assert written == len(expected) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in expected]
    for path in expected:
        made = Image.open(tmp_path / path.name)
        assert made.mode == "L"
        np.testing.assert_array_equal(np.asarray(made), np.asarray(Image.open(path)))


def run_script(*arguments: str) -> int:
    spec = importlib.util.spec_from_file_location("prepare_coco_semantic", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(list(arguments))


@pytest.fixture
def tiny_coco(tmp_path) -> Path:
    """coco/ with one validation image: person (1), tree-merged (184), void."""
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "panoptic_val2017").mkdir()
    rgb = np.zeros((2, 3, 3), np.uint8)
    rgb[0, :2] = [7, 1, 0]  # 7 + 256
    rgb[1] = [0, 0, 2]  # 131072
    Image.fromarray(rgb).save(coco / "panoptic_val2017" / "000000000139.png")
    segments = [{"id": 263, "category_id": 1}, {"id": 131072, "category_id": 184}]
    entry = {"image_id": 139, "file_name": "000000000139.png", "segments_info": segments}
    text = json.dumps({"annotations": [entry]})
    (coco / "annotations" / "panoptic_val2017.json").write_text(text)
    return coco


def test_coco_labels_are_rows_of_the_class_table(tiny_coco, capsys):
    arguments = ["--root", str(tiny_coco.parent), "--splits", "val2017", "--quiet"]
    assert run_script(*arguments) == 0
    made = np.asarray(Image.open(tiny_coco / "panoptic_semseg_val2017" / "000000000139.png"))
    tree = contiguous_labels("coco_panoptic")[184]
    assert made.tolist() == [[0, 0, 255], [tree, tree, tree]]
    assert "1 maps written" in capsys.readouterr().out


def test_a_second_run_writes_nothing(tiny_coco, capsys):
    arguments = ["--root", str(tiny_coco.parent), "--splits", "val2017", "--quiet"]
    run_script(*arguments)
    assert run_script(*arguments) == 0
    assert "0 maps written" in capsys.readouterr().out


def test_missing_annotations_are_named_with_a_non_zero_exit(tmp_path, capsys):
    assert run_script("--root", str(tmp_path), "--quiet") == 2
    message = capsys.readouterr().err
    assert "panoptic_val2017.json is missing" in message
    assert message.count("Download") == 1


def test_an_unknown_category_names_the_image(tiny_coco, tmp_path):
    json_file = tiny_coco / "annotations" / "panoptic_val2017.json"
    with pytest.raises(ValueError, match=r"000000000139\.png has a segment of category 184"):
        write_semantic_maps(
            json_file,
            tiny_coco / "panoptic_val2017",
            tmp_path / "out",
            {1: 0},
            workers=1,
            progress=False,
        )
    assert not list((tmp_path / "out").iterdir())
