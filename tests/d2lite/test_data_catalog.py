"""Catalogs, metadata, and what is registered at import."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest

import detectron2
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets import builtin_meta
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

FACTS = json.loads(
    (Path(__file__).parents[1] / "fixtures/d2lite_data/builtin_datasets.json").read_text()
)
PATHS = {
    "json_file",
    "image_root",
    "panoptic_root",
    "panoptic_json",
    "sem_seg_root",
    "image_dir",
    "gt_dir",
    "dirname",
}


@pytest.fixture
def name():
    name = "catalog_test_set"
    yield name
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.remove(name)


def test_the_loader_runs_at_every_get(name):
    calls = []
    DatasetCatalog.register(name, lambda: calls.append(1) or [{}])
    assert calls == []
    assert DatasetCatalog.get(name) == [{}] == DatasetCatalog.get(name)
    assert calls == [1, 1]
    assert name in DatasetCatalog and name in DatasetCatalog.list()


def test_a_name_is_registered_once(name):
    DatasetCatalog.register(name, list)
    with pytest.raises(AssertionError, match="already registered"):
        DatasetCatalog.register(name, list)


def test_a_loader_must_be_callable(name):
    with pytest.raises(AssertionError, match="function"):
        DatasetCatalog.register(name, [{}])


def test_an_unknown_name_suggests_the_nearest_before_listing_all():
    with pytest.raises(KeyError) as error:
        DatasetCatalog.get("coco_2017_vall")
    message = str(error.value)
    assert "Did you mean: coco_2017_val" in message
    suggestions, everything = message.split("Available datasets are: ")
    assert "ade20k_sem_seg_train" in everything
    assert "ade20k_sem_seg_train" not in suggestions
    assert message.index("Did you mean") < message.index("Available")


@pytest.mark.skipif(not getattr(detectron2, "__d2lite__", False), reason="d2lite's own message")
@pytest.mark.parametrize(
    "dataset",
    [
        "coco_2017_val",
        "coco_2017_val_panoptic",
        "coco_2017_val_panoptic_stuffonly",
        "ade20k_sem_seg_val",
        "cityscapes_fine_panoptic_val",
        "cityscapes_fine_sem_seg_val",
        "lvis_v1_val",
        "voc_2007_val",
    ],
)
def test_missing_files_name_the_set_the_path_and_the_variable(dataset, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(dataset)
    message = str(error.value)
    assert f"'{dataset}'" in message and "DETECTRON2_DATASETS" in message
    metadata = MetadataCatalog.get(dataset)
    roots = ("json_file", "panoptic_json", "sem_seg_root", "image_dir", "dirname")
    assert any(metadata.get(key) and metadata.get(key) in message for key in roots)


def test_metadata_cannot_be_changed_unless_deleted(name):
    metadata = MetadataCatalog.get(name).set(thing_classes=["a"], ignore_label=255)
    metadata.thing_classes = ["a"]
    with pytest.raises(AssertionError, match="cannot be set to a different value"):
        metadata.thing_classes = ["b"]
    del metadata.thing_classes
    metadata.thing_classes = ["b"]
    assert MetadataCatalog.get(name).thing_classes == ["b"]


def test_a_missing_metadata_key_names_the_set_and_the_known_keys(name):
    metadata = MetadataCatalog.get(name).set(ignore_label=255)
    with pytest.raises(AttributeError, match=f"thing_classes.*{name}.*ignore_label"):
        _ = metadata.thing_classes
    assert metadata.get("thing_classes") is None
    assert metadata.get("thing_classes", 3) == 3
    assert not hasattr(metadata, "thing_classes")


def test_metadata_is_copied_shallowly_and_pickles(name):
    metadata = MetadataCatalog.get(name).set(thing_classes=["a"])
    as_dict = metadata.as_dict()
    as_dict["x"] = 1
    assert "x" not in metadata.as_dict()
    assert pickle.loads(pickle.dumps(metadata)).thing_classes == ["a"]
    assert Metadata(name="y").name == "y"


def test_old_metadata_names_lead_to_the_new_ones(name):
    metadata = MetadataCatalog.get(name)
    metadata.class_names = ["a"]
    assert metadata.thing_classes == ["a"] == metadata.class_names


def test_every_builtin_data_set_has_its_published_metadata():
    for dataset, expected in FACTS["datasets"].items():
        assert dataset in DatasetCatalog.list()
        metadata = MetadataCatalog.get(dataset)
        for key, value in expected.items():
            actual = metadata.get(key)
            if key in PATHS:
                assert actual.endswith("/" + value), (dataset, key)
            else:
                assert actual == value, (dataset, key)


def sha256(rows):
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_class_tables_are_the_published_ones():
    coco = [[r["id"], r["name"], r["isthing"], r["color"]] for r in builtin_meta.COCO_CATEGORIES]
    cityscapes = [
        [r["id"], r["trainId"], r["name"], r["isthing"], r["color"]]
        for r in builtin_meta.CITYSCAPES_CATEGORIES
    ]
    keypoints = [
        builtin_meta.COCO_PERSON_KEYPOINT_NAMES,
        builtin_meta.COCO_PERSON_KEYPOINT_FLIP_MAP,
        builtin_meta.KEYPOINT_CONNECTION_RULES,
    ]
    assert sha256(coco) == FACTS["tables"]["COCO_133"]
    assert sha256(cityscapes) == FACTS["tables"]["CITYSCAPES_19"]
    assert sha256(list(builtin_meta.ADE20K_SEM_SEG_CATEGORIES)) == FACTS["tables"]["ADE20K_150"]
    assert sha256(list(CLASS_NAMES)) == FACTS["tables"]["PASCAL_VOC_20"]
    assert sha256(keypoints) == FACTS["tables"]["COCO_KEYPOINTS"]


def test_coco_instances_are_80_things_in_table_order():
    meta = _get_builtin_metadata("coco")
    assert len(meta["thing_classes"]) == len(meta["thing_colors"]) == 80
    assert list(meta["thing_dataset_id_to_contiguous_id"].values()) == list(range(80))
    assert meta["thing_dataset_id_to_contiguous_id"][90] == 79
    assert meta["thing_classes"][79] == "toothbrush"


def test_coco_panoptic_numbers_133_classes_together():
    meta = _get_builtin_metadata("coco_panoptic_standard")
    assert len(meta["thing_classes"]) == len(meta["stuff_classes"]) == 133
    assert set(meta["thing_dataset_id_to_contiguous_id"].values()) == set(range(80))
    assert set(meta["stuff_dataset_id_to_contiguous_id"].values()) == set(range(80, 133))


def test_separated_panoptic_has_one_class_for_all_things():
    meta = _get_builtin_metadata("coco_panoptic_separated")
    assert meta["stuff_classes"][0] == "things" and len(meta["stuff_classes"]) == 54
    assert meta["stuff_dataset_id_to_contiguous_id"][0] == 0
    assert meta["stuff_dataset_id_to_contiguous_id"][92] == 1
    assert meta["stuff_colors"][0] == [82, 18, 128]


def test_cityscapes_panoptic_ids_are_train_ids():
    metadata = MetadataCatalog.get("cityscapes_fine_panoptic_val")
    assert metadata.thing_dataset_id_to_contiguous_id == {
        24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18
    }  # fmt: skip
    assert sorted(metadata.stuff_dataset_id_to_contiguous_id.values()) == list(range(11))
    assert len(metadata.thing_classes) == len(metadata.stuff_classes) == 19


def test_unknown_builtin_metadata_is_a_key_error():
    with pytest.raises(KeyError, match="no built-in metadata"):
        _get_builtin_metadata("coco_pan")
