"""The safety-barrier set at its published place, with its published classes."""

import json
import sys

import pytest
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog

CLASSES = ["rail_top", "rail_mid", "toeboard", "vertical_post"]


@pytest.fixture
def barrier(tmp_path, monkeypatch):
    """Writes the set below the working directory and registers it from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "elsewhere"))
    root = tmp_path / "datasets" / "safetybarrier"

    def write(names=tuple(CLASSES)):
        for split in ("train", "val"):
            (root / "images" / split).mkdir(parents=True)
            Image.new("RGB", (8, 6)).save(root / "images" / split / "a.jpg")
            box = {"bbox": [1, 1, 3, 3], "segmentation": [[1, 1, 4, 1, 4, 4]], "area": 4.5}
            content = {
                "images": [{"id": 0, "file_name": "a.jpg", "width": 8, "height": 6}],
                "categories": [{"id": i, "name": n} for i, n in enumerate(names, start=3)],
                "annotations": [{"id": 1, "image_id": 0, "category_id": 5, "iscrowd": 0, **box}],
            }
            file = root / "annotations" / f"instances_{split}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(content))
        import mask2former.data.datasets.register_safetybarrier_instance  # noqa: F401

        module = sys.modules["mask2former.data.datasets.register_safetybarrier_instance"]
        module.register_all_safetybarrier(module._root())

    return write


def test_the_published_place_is_the_working_directory(barrier):
    barrier()
    (record,) = DatasetCatalog.get("safetybarrier_train")
    assert record["file_name"] == "datasets/safetybarrier/images/train/a.jpg"
    assert record["annotations"][0]["category_id"] == 2
    meta = MetadataCatalog.get("safetybarrier_train")
    assert meta.thing_classes == CLASSES
    assert meta.thing_dataset_id_to_contiguous_id == {3: 0, 4: 1, 5: 2, 6: 3}


def test_other_classes_are_named(barrier):
    barrier(names=("rail", "post", "board", "net"))
    with pytest.raises(ValueError, match="its categories are rail, post, board, net"):
        DatasetCatalog.get("safetybarrier_val")
