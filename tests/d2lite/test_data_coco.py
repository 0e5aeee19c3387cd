"""COCO instances, panoptic and semantic folders written by the test and loaded back."""

import json
import logging

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

import detectron2
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import (
    load_coco_json,
    load_sem_seg,
    register_coco_instances,
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.coco import convert_to_coco_dict, convert_to_coco_json
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json
from detectron2.structures import BoxMode

only_d2lite = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="d2lite's own messages"
)
SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
META = {
    "thing_dataset_id_to_contiguous_id": {3: 0},
    "stuff_dataset_id_to_contiguous_id": {9: 1},
    "thing_classes": ["cat", "sky"],
    "stuff_classes": ["cat", "sky"],
}


@pytest.fixture
def name():
    yield (base := "coco_test_set")
    for catalog in (DatasetCatalog, MetadataCatalog):
        for suffix in ("", "_separated", "_stuffonly"):
            if base + suffix in catalog:
                catalog.remove(base + suffix)


def annotation(id, **changes):
    base = {"id": id, "image_id": 7, "category_id": 3, "bbox": [1, 1, 4, 4], "iscrowd": 0}
    return {**base, "area": 16, "segmentation": [SQUARE], **changes}


def write_json(folder, annotations, categories=((9, "dog"), (3, "cat"))):
    content = {
        "images": [
            {"id": 8, "file_name": "b.jpg", "height": 6, "width": 9},
            {"id": 7, "file_name": "a.jpg", "height": 6, "width": 8},
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in categories],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return str(path)


def write_image(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_records_are_sorted_by_image_and_classes_by_id(tmp_path, name):
    records = load_coco_json(write_json(tmp_path, [annotation(1)]), "root", name)
    assert [r["image_id"] for r in records] == [7, 8]
    assert records[0]["file_name"] == "root/a.jpg"
    assert (records[0]["height"], records[0]["width"]) == (6, 8)
    assert records[0]["annotations"] == [
        {
            "iscrowd": 0,
            "bbox": [1, 1, 4, 4],
            "category_id": 0,
            "segmentation": [SQUARE],
            "bbox_mode": BoxMode.XYWH_ABS,
        }
    ]
    assert records[1]["annotations"] == []
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {3: 0, 9: 1}


def test_without_a_name_ids_stay_and_no_metadata_is_written(tmp_path):
    before = set(MetadataCatalog)
    records = load_coco_json(write_json(tmp_path, [annotation(1)]), "")
    assert records[0]["annotations"][0]["category_id"] == 3
    assert set(MetadataCatalog) == before


def test_ids_with_gaps_are_warned_of(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    try:
        load_coco_json(write_json(tmp_path, [annotation(1)]), "", "gappy_set")
    finally:
        MetadataCatalog.remove("gappy_set")
    assert "Category ids" in caplog.text


def test_unusable_polygons_are_dropped_and_counted(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    annotations = [
        annotation(1, segmentation=[[1, 1, 2, 2], SQUARE]),
        annotation(2, segmentation=[[1, 1, 2, 2]]),
        annotation(3, segmentation=[[1, 1, 2, 2, 3, 3, 4]]),
    ]
    records = load_coco_json(write_json(tmp_path, annotations), "")
    assert [a["segmentation"] for a in records[0]["annotations"]] == [[SQUARE]]
    assert "Filtered out 2 instances" in caplog.text


def test_an_annotation_without_segmentation_keeps_its_box(tmp_path):
    plain = annotation(1)
    del plain["segmentation"]
    annotations = [plain, annotation(2, segmentation=[])]
    loaded = load_coco_json(write_json(tmp_path, annotations), "")[0]["annotations"]
    assert len(loaded) == 2 and all("segmentation" not in a for a in loaded)


def test_uncompressed_rle_is_compressed(tmp_path):
    rle = {"size": [6, 8], "counts": [0, 6, 42]}
    path = write_json(tmp_path, [annotation(1, segmentation=rle, iscrowd=1)])
    loaded = load_coco_json(path, "")[0]["annotations"][0]
    mask = mask_util.decode(loaded["segmentation"])
    assert mask.shape == (6, 8) and mask[:, 0].all() and mask.sum() == 6
    assert loaded["iscrowd"] == 1


def test_keypoints_move_to_pixel_centres(tmp_path):
    path = write_json(tmp_path, [annotation(1, keypoints=[2, 3, 2, 0, 0, 0])])
    loaded = load_coco_json(path, "")[0]["annotations"][0]
    assert loaded["keypoints"] == [2.5, 3.5, 2, 0.5, 0.5, 0]


def test_extra_annotation_keys_are_kept_on_request(tmp_path):
    path = write_json(tmp_path, [annotation(1, colour="red")])
    assert "colour" not in load_coco_json(path, "")[0]["annotations"][0]
    loaded = load_coco_json(path, "", extra_annotation_keys=["colour"])
    assert loaded[0]["annotations"][0]["colour"] == "red"


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"ignore": 1}, AssertionError, "ignore"),
        ({"bbox": []}, ValueError, "empty 'bbox'"),
        ({"category_id": 4}, KeyError, "category_id=4"),
    ],
)
def test_wrong_annotations_are_errors(tmp_path, name, changes, error, match):
    with pytest.raises(error, match=match):
        load_coco_json(write_json(tmp_path, [annotation(1, **changes)]), "", name)


def test_annotation_ids_must_be_unique_except_in_minival(tmp_path):
    path = write_json(tmp_path, [annotation(1), annotation(1)])
    with pytest.raises(AssertionError, match="unique"):
        load_coco_json(path, "")
    minival = tmp_path / "minival.json"
    minival.write_text((tmp_path / "instances.json").read_text())
    assert len(load_coco_json(str(minival), "")[0]["annotations"]) == 2


def test_registration_is_lazy_and_repeatable(name):
    register_coco_instances(name, {"thing_colors": [[1, 2, 3]]}, "nowhere.json", "nowhere")
    register_coco_instances(name, {}, "nowhere.json", "nowhere")
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "coco" and metadata.json_file == "nowhere.json"
    assert metadata.image_root == "nowhere" and metadata.thing_colors == [[1, 2, 3]]


def test_registered_classes_must_agree_with_the_file(tmp_path, name):
    path = write_json(tmp_path, [annotation(1)])
    register_coco_instances(name, {"thing_classes": ["horse"]}, path, "")
    with pytest.raises(AssertionError, match="thing_classes"):
        DatasetCatalog.get(name)


@only_d2lite
def test_a_missing_json_file_names_path_set_and_variable(name):
    register_coco_instances(name, {}, "nowhere/x.json", "nowhere")
    with pytest.raises(FileNotFoundError, match=rf"nowhere/x\.json.*{name}.*DETECTRON2_DATASETS"):
        DatasetCatalog.get(name)


@only_d2lite
def test_a_missing_image_folder_names_path_set_and_variable(tmp_path, name):
    path = write_json(tmp_path, [annotation(1)])
    register_coco_instances(name, {}, path, str(tmp_path / "images"))
    with pytest.raises(FileNotFoundError, match=rf"images.*{name}.*DETECTRON2_DATASETS"):
        get_detection_dataset_dicts(name)


def test_images_without_usable_annotations_are_filtered(tmp_path, name):
    crowd = annotation(2, image_id=8, iscrowd=1)
    path = write_json(tmp_path, [annotation(1), crowd])
    register_coco_instances(name, {}, path, str(tmp_path))
    assert [r["image_id"] for r in get_detection_dataset_dicts(name)] == [7]
    assert len(get_detection_dataset_dicts([name, name], filter_empty=False)) == 4


def test_panoptic_segments_get_contiguous_ids_and_say_what_is_a_thing(tmp_path, name):
    write_image(tmp_path / "images/000001.jpg", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "panoptic/000001.png", np.zeros((4, 4, 3), np.uint8))
    segments = [
        {"id": 5, "category_id": 3, "iscrowd": 0, "area": 3},
        {"id": 6, "category_id": 9, "iscrowd": 0, "area": 3},
    ]
    ann = {"image_id": "000001", "file_name": "000001.png", "segments_info": segments}
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps({"annotations": [ann]}))
    register_coco_panoptic(
        name, META, str(tmp_path / "images"), str(tmp_path / "panoptic"), str(path)
    )
    (record,) = DatasetCatalog.get(name)
    assert record["image_id"] == 1
    assert record["file_name"] == str(tmp_path / "images/000001.jpg")
    assert record["pan_seg_file_name"] == str(tmp_path / "panoptic/000001.png")
    assert [(s["category_id"], s["isthing"]) for s in record["segments_info"]] == [
        (0, True),
        (1, False),
    ]
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert (metadata.ignore_label, metadata.label_divisor) == (255, 1000)
    assert metadata.json_file is None


@only_d2lite
def test_a_missing_panoptic_map_is_named(tmp_path):
    write_image(tmp_path / "000001.jpg", np.zeros((4, 4, 3), np.uint8))
    ann = {"image_id": 1, "file_name": "000001.png", "segments_info": []}
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps({"annotations": [ann]}))
    with pytest.raises(FileNotFoundError, match=r"panoptic label map.*gone/000001\.png"):
        load_coco_panoptic_json(str(path), str(tmp_path), "gone", META)


@only_d2lite
def test_a_panoptic_segment_of_an_unknown_class_is_named(tmp_path):
    segments = [{"id": 5, "category_id": 77}]
    ann = {"image_id": 1, "file_name": "000001.png", "segments_info": segments}
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps({"annotations": [ann]}))
    with pytest.raises(KeyError, match="category_id=77"):
        load_coco_panoptic_json(str(path), "", "", META)


def test_separated_panoptic_merges_instances_and_semantics(tmp_path, name):
    for image in ("a", "b"):
        write_image(tmp_path / f"images/{image}.jpg", np.zeros((4, 4, 3), np.uint8))
        write_image(tmp_path / f"stuff/{image}.png", np.zeros((4, 4), np.uint8))
    register_coco_panoptic_separated(
        name,
        {},
        str(tmp_path / "images"),
        "panoptic",
        "panoptic.json",
        str(tmp_path / "stuff"),
        write_json(tmp_path, [annotation(1)]),
    )
    records = DatasetCatalog.get(f"{name}_separated")
    assert records[0]["sem_seg_file_name"] == str(tmp_path / "stuff/a.png")
    assert len(records[0]["annotations"]) == 1
    stuff = DatasetCatalog.get(f"{name}_stuffonly")
    assert set(stuff[0]) == {"file_name", "sem_seg_file_name"}
    assert MetadataCatalog.get(f"{name}_stuffonly").evaluator_type == "sem_seg"


def test_semantic_files_are_paired_by_name(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    for image in ("c", "a", "b"):
        write_image(tmp_path / f"images/{image}.jpg", np.zeros((4, 4, 3), np.uint8))
    for label in ("a", "c"):
        write_image(tmp_path / f"labels/{label}.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "labels/notes.txt").write_text("")
    records = load_sem_seg(str(tmp_path / "labels"), str(tmp_path / "images"))
    assert [r["file_name"][-5:] for r in records] == ["a.jpg", "c.jpg"]
    assert [r["sem_seg_file_name"][-5:] for r in records] == ["a.png", "c.png"]
    assert "3 and 2 files" in caplog.text


def test_an_empty_label_folder_is_an_error(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    with pytest.raises(AssertionError, match="No annotations"):
        load_sem_seg(str(tmp_path / "labels"), str(tmp_path / "images"))


def test_export_to_coco_gives_back_what_was_loaded(tmp_path, name):
    rle = mask_util.encode(np.asfortranarray(np.eye(6, 8, dtype=np.uint8)))
    rle = {"size": rle["size"], "counts": rle["counts"].decode()}
    annotations = [
        annotation(11, bbox=[1.00049, 1, 4, 4]),
        annotation(12, category_id=9, segmentation=rle, iscrowd=1),
    ]
    register_coco_instances(name, {}, write_json(tmp_path, annotations), "root")
    exported = convert_to_coco_dict(name)
    assert exported["categories"] == [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
    first, second = exported["annotations"]
    assert (first["id"], first["category_id"], first["image_id"]) == (1, 3, 7)
    assert first["bbox"] == [1.0, 1.0, 4.0, 4.0] and first["area"] == 16
    assert (second["id"], second["iscrowd"], second["area"]) == (2, 1, 6)
    assert second["segmentation"] == rle
    json.dumps(exported)


def test_an_exported_file_is_reused(tmp_path, name):
    register_coco_instances(name, {}, write_json(tmp_path, [annotation(1)]), "root")
    output = tmp_path / "out" / "x.json"
    convert_to_coco_json(name, str(output))
    assert len(json.loads(output.read_text())["annotations"]) == 1
    output.write_text("{}")
    convert_to_coco_json(name, str(output))
    assert output.read_text() == "{}"
    convert_to_coco_json(name, str(output), allow_cached=False)
    assert len(load_coco_json(str(output), "")) == 2
