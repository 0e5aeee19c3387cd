"""Cityscapes, LVIS and Pascal VOC files written by the test and loaded back."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

import detectron2
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.lvis import load_lvis_json
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode, polygons_to_bitmask

pytestmark = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False),
    reason="detectron2 needs cityscapesscripts and lvis for these",
)

if getattr(detectron2, "__d2lite__", False):
    from detectron2.data.datasets.cityscapes import (
        load_cityscapes_instances,
        load_cityscapes_semantic,
    )
    from detectron2.data.datasets.cityscapes_panoptic import load_cityscapes_panoptic

STEM = "aachen/aachen_000000_000019"


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


@pytest.fixture
def cityscapes(tmp_path):
    """One 20 x 40 image with two overlapping cars, a person group and a pole."""
    objects = [
        {"label": "road", "polygon": box(0, 0, 39, 19)},
        {"label": "car", "polygon": box(2, 2, 11, 11)},
        {"label": "car", "polygon": box(7, 2, 16, 11)},
        {"label": "persongroup", "polygon": box(20, 2, 25, 8)},
        {"label": "pole", "polygon": box(30, 0, 32, 19)},
        {"label": "license plate", "polygon": box(3, 3, 4, 4)},
        {"label": "car", "polygon": box(0, 0, 1, 1), "deleted": 1},
    ]
    ids = np.zeros((20, 40), np.uint16)
    ids[2:12, 2:12] = 26000
    ids[2:12, 7:17] = 26001
    ids[2:9, 20:26] = 24
    ids[0:20, 30:33] = 17
    image = tmp_path / f"leftImg8bit/train/{STEM}_leftImg8bit.png"
    gt = tmp_path / f"gtFine/train/{STEM}_gtFine"
    for path in (image, gt):
        path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(image)
    Image.fromarray(ids).save(f"{gt}_instanceIds.png")
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(f"{gt}_labelIds.png")
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(f"{gt}_labelTrainIds.png")
    content = {"imgHeight": 20, "imgWidth": 40, "objects": objects}
    (gt.parent / f"{gt.name}_polygons.json").write_text(json.dumps(content))
    return tmp_path


def load_instances(root, **kwargs):
    (record,) = load_cityscapes_instances(
        str(root / "leftImg8bit/train"), str(root / "gtFine/train"), **kwargs
    )
    assert record["image_id"] == "aachen_000000_000019_leftImg8bit.png"
    assert (record["height"], record["width"]) == (20, 40)
    return record["annotations"]


def test_cityscapes_later_polygons_cover_earlier_ones(cityscapes):
    group, front, behind = load_instances(cityscapes)
    assert [a["category_id"] for a in (group, front, behind)] == [0, 2, 2]
    assert [a["iscrowd"] for a in (group, front, behind)] == [True, False, False]
    front_mask = polygons_to_bitmask(front["segmentation"], 20, 40)
    behind_mask = polygons_to_bitmask(behind["segmentation"], 20, 40)
    assert not (front_mask & behind_mask).any()
    assert front_mask[2:12, 7:17].all() and behind_mask[2:12, 2:7].all()
    assert front["bbox_mode"] == BoxMode.XYXY_ABS
    assert front["bbox"] == pytest.approx((7, 2, 17, 12))


def test_cityscapes_instances_from_id_maps(cityscapes):
    group, behind, front = load_instances(cityscapes, from_json=False, to_polygons=False)
    assert [a["category_id"] for a in (group, behind, front)] == [0, 2, 2]
    assert group["iscrowd"] and not front["iscrowd"]
    assert mask_util.decode(behind["segmentation"])[2:12, 2:7].all()
    assert mask_util.area(behind["segmentation"]) == 50
    assert front["bbox"] == (7, 2, 16, 11)


def test_cityscapes_id_maps_as_polygons(cityscapes):
    annotations = load_instances(cityscapes, from_json=False, to_polygons=True)
    assert all(isinstance(p, list) for a in annotations for p in a["segmentation"])


def test_cityscapes_semantic_maps_are_train_ids(cityscapes):
    (record,) = load_cityscapes_semantic(
        str(cityscapes / "leftImg8bit/train"), str(cityscapes / "gtFine/train")
    )
    assert record["sem_seg_file_name"].endswith(f"{STEM}_gtFine_labelTrainIds.png")
    assert (record["height"], record["width"]) == (20, 40)


def test_a_missing_cityscapes_folder_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit.*DETECTRON2_DATASETS"):
        load_cityscapes_semantic(str(tmp_path / "leftImg8bit/train"), str(tmp_path))


def test_cityscapes_panoptic_uses_train_ids(cityscapes):
    folder = cityscapes / "gtFine/cityscapes_panoptic_train"
    folder.mkdir()
    name = "aachen_000000_000019_gtFine_panoptic.png"
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(folder / name)
    segments = [{"id": 26000, "category_id": 26}, {"id": 7, "category_id": 7}]
    ann = {"image_id": "aachen_000000_000019", "file_name": name, "segments_info": segments}
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({"annotations": [ann]}))
    meta = MetadataCatalog.get("cityscapes_fine_panoptic_train").as_dict()
    (record,) = load_cityscapes_panoptic(
        str(cityscapes / "leftImg8bit/train"), str(folder), str(path), meta
    )
    assert record["image_id"] == "aachen_000000_000019"
    assert [s["category_id"] for s in record["segments_info"]] == [13, 0]
    assert "isthing" not in record["segments_info"][0]
    assert record["sem_seg_file_name"].endswith(f"gtFine/train/{STEM}_gtFine_labelTrainIds.png")
    assert record["pan_seg_file_name"] == str(folder / name)


def test_lvis_classes_are_read_from_the_file(tmp_path):
    content = {
        "images": [
            {
                "id": 4,
                "height": 5,
                "width": 6,
                "coco_url": "http://images.cocodataset.org/val2017/000000000004.jpg",
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [],
            }
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 4,
                "category_id": 2,
                "bbox": [0, 0, 2, 2],
                "segmentation": [[0, 0, 2, 0, 2, 2], [1, 1, 2, 2]],
            }
        ],
        "categories": [{"id": 2, "synonyms": ["b"]}, {"id": 1, "synonyms": ["a"]}],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    try:
        (record,) = load_lvis_json(str(path), "coco", "lvis_test_set")
        assert MetadataCatalog.get("lvis_test_set").thing_classes == ["a", "b"]
    finally:
        MetadataCatalog.remove("lvis_test_set")
    assert record["file_name"] == "coco/val2017/000000000004.jpg"
    assert record["neg_category_ids"] == [2]
    assert record["annotations"][0]["category_id"] == 1
    assert record["annotations"][0]["segmentation"] == [[0, 0, 2, 0, 2, 2]]


def test_voc_boxes_start_at_zero(tmp_path):
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("000005\n")
    (tmp_path / "Annotations/000005.xml").write_text(
        "<annotation><size><width>50</width><height>40</height></size><object><name>cat</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>40</ymax></bndbox></object>"
        "</annotation>"
    )
    (record,) = load_voc_instances(str(tmp_path), "train", ["dog", "cat"])
    assert record["annotations"][0]["bbox"] == [0, 0, 50, 40]
    assert record["annotations"][0]["category_id"] == 1
    assert (record["height"], record["width"], record["image_id"]) == (40, 50, "000005")


def test_no_builtin_set_is_read_before_it_is_used():
    with pytest.raises(FileNotFoundError, match=r"ImageSets/Main/train\.txt"):
        DatasetCatalog.get("voc_2007_train")
