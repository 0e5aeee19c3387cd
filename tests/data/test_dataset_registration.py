"""Published names with published metadata, and clear words when files are missing.

tests/fixtures/data/registrations.json was resolved from contracts/datasets.json: paths relative to
the root, plain values, and [length, first 12 hex digits of SHA-1 of the sorted JSON] of class data.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

import mask2former.data  # noqa: F401 - registers
from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.catalogs import load_table
from mask2former.data.datasets import dataset_root, register_all_shapes, require_dataset_files
from mask2former.data.datasets.records import load_panoptic_records, number_categories

FIXTURE = Path(__file__).parents[1] / "fixtures" / "data" / "registrations.json"
EXPECTED = json.loads(FIXTURE.read_text())


def digest(value) -> list:
    if isinstance(value, dict):
        value = {str(k): v for k, v in value.items()}
    text = json.dumps(value, sort_keys=True)
    return [len(value), hashlib.sha1(text.encode()).hexdigest()[:12]]


@pytest.mark.parametrize("name", EXPECTED)
def test_published_metadata(name):
    expected = EXPECTED[name]
    metadata = MetadataCatalog.get(name)
    assert name in DatasetCatalog.list()
    for key, value in expected["values"].items():
        assert metadata.get(key) == value, key
    for key, path in expected["paths"].items():
        found = metadata.get(key)
        assert found == (None if path is None else os.path.join(dataset_root(), path)), key
    for key, value in expected["classes"].items():
        assert digest(metadata.get(key)) == value, key


def test_shapes_are_registered_like_coco():
    plain = MetadataCatalog.get("shapes_panoptic_train")
    semantic = MetadataCatalog.get("shapes_panoptic_train_with_sem_seg")
    assert plain.thing_classes == semantic.thing_classes
    assert len(plain.thing_classes) == 6
    assert len(plain.stuff_classes) == 12
    assert list(plain.stuff_dataset_id_to_contiguous_id.values()) == list(range(6, 12))
    assert list(semantic.stuff_dataset_id_to_contiguous_id.values()) == list(range(12))
    assert plain.evaluator_type == semantic.evaluator_type == "coco_panoptic_seg"
    assert MetadataCatalog.get("shapes_instance_val").evaluator_type == "coco"
    assert MetadataCatalog.get("shapes_sem_seg_val").evaluator_type == "sem_seg"


def test_panoptic_records_have_the_standard_fields(shapes_root):
    records = DatasetCatalog.get("tinyshapes_panoptic_val_with_sem_seg")
    assert len(records) == 5
    for record in records:
        assert isinstance(record["image_id"], int)
        for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name"):
            assert Path(record[key]).is_file()
        for segment in record["segments_info"]:
            assert segment["isthing"] is (segment["category_id"] < 6)


def test_instance_records_number_categories_and_keep_annotation_ids(shapes_root):
    records = DatasetCatalog.get("tinyshapes_instance_train")
    annotations = [a for r in records for a in r["annotations"]]
    assert {a["category_id"] for a in annotations} <= set(range(6))
    assert len({a["id"] for a in annotations}) == len(annotations)


def test_the_semantic_set_pairs_images_and_label_maps(shapes_root):
    for record in DatasetCatalog.get("tinyshapes_sem_seg_train"):
        assert Path(record["file_name"]).stem == Path(record["sem_seg_file_name"]).stem


def test_an_unknown_category_names_file_and_image(tmp_path):
    path = tmp_path / "panoptic.json"
    segment = {"id": 5, "category_id": 99, "iscrowd": 0}
    entry = {"image_id": 12, "file_name": "12.png", "segments_info": [segment]}
    path.write_text(json.dumps({"annotations": [entry]}))
    with pytest.raises(ValueError, match=r"panoptic\.json: image 12 .* category 99"):
        load_panoptic_records(str(path), "i", "p", thing_ids={1: 0}, stuff_ids={})
    with pytest.raises(ValueError, match=r"x\.json: a\.jpg .* category 3"):
        number_categories(
            [{"file_name": "a.jpg", "annotations": [{"category_id": 3}]}], {1: 0}, "x.json"
        )


def test_a_missing_folder_names_paths_variable_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_all_shapes(str(tmp_path), prefix="shapes_missing")
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get("shapes_missing_panoptic_train_with_sem_seg")
    message = str(error.value)
    assert str(tmp_path / "shapes" / "annotations" / "panoptic_train.json") in message
    assert str(tmp_path / "shapes" / "panoptic_semseg_train") in message
    assert f"DETECTRON2_DATASETS={tmp_path}" in message
    assert "python datasets/prepare_shapes.py" in message


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("coco_2017_val_panoptic_with_sem_seg", "prepare_coco_semantic_annos_from_panoptic_annos"),
        ("ade20k_panoptic_val", "annotations_detectron2"),
        ("ade20k_sem_seg_val", "annotations_detectron2"),
        ("cityscapes_fine_panoptic_val", "createPanopticImgs"),
    ],
)
def test_sets_that_detectron2_registers_get_the_same_message(name, command):
    if os.path.isdir(MetadataCatalog.get(name).image_root):
        pytest.skip("the data is here")
    with pytest.raises(FileNotFoundError, match=command):
        require_dataset_files(name)


def test_every_script_that_a_message_names_exists():
    repository = Path(__file__).parents[2]
    remedies = [row["remedy"] for row in load_table("preparation")]
    scripts = {s for remedy in remedies for s in re.findall(r"[\w/]+\.py", remedy)}
    assert "datasets/prepare_shapes.py" in scripts
    assert all((repository / script).is_file() for script in scripts)
