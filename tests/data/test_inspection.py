"""Planted damage is found and named; counts are right; pictures show every kind of annotation."""

import json
import re
from argparse import Namespace

import numpy as np
import pytest
from layouts.coco import write_coco
from layouts.mapillary import write_mapillary
from layouts.safetybarrier import CLASSES, write_safetybarrier
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.datasets.declare import (
    instance_classes,
    panoptic_classes,
    register_instances,
    register_panoptic,
    register_semantic,
)
from mask2former.data.inspection import (
    contact_sheet,
    describe,
    draw_record,
    expected_files,
    near_miss,
    survey,
)
from mask2former.data.inspection.commands import COMMANDS
from mask2former.data.inspection.examine import examine
from mask2former.data.inspection.report import survey_lines
from mask2former.data.inspection.sets import IdNames

NAMES = ("inspected_panoptic", "inspected_semantic", "inspected_instances")


@pytest.fixture
def root(tmp_path):
    """Tiny sets under their own names: Mapillary panoptic and semantic, safety barriers."""
    from mask2former.data.catalogs import load_table

    write_mapillary(tmp_path, images=3)
    write_safetybarrier(tmp_path)
    folder = tmp_path / "mapillary_vistas/training"
    rows = load_table("mapillary_panoptic")
    register_panoptic(
        NAMES[0],
        panoptic_classes(rows, things_as="all"),
        image_root=str(folder / "images"),
        panoptic_root=str(folder / "panoptic"),
        panoptic_json=str(folder / "panoptic/panoptic_2018.json"),
        instances_json=None,
        sem_seg_root=str(folder / "labels"),
        ignore_label=65,
        image_id=str,
    )
    register_semantic(
        NAMES[1],
        {"stuff_classes": [r["name"] for r in rows]},
        image_root=str(folder / "images"),
        sem_seg_root=str(folder / "labels"),
        ignore_label=65,
    )
    folder = tmp_path / "safetybarrier"
    register_instances(
        NAMES[2],
        instance_classes({"id": i + 1, "name": n} for i, n in enumerate(CLASSES)),
        image_root=str(folder / "images/train"),
        json_file=str(folder / "annotations/instances_train.json"),
    )
    yield tmp_path
    for name in NAMES:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def quietly(name: str, **options):
    return survey(name, progress=False, workers=2, **options)


def first_image(root, pattern="mapillary_vistas/training/images/*.jpg"):
    return sorted(root.glob(pattern))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_set_has_no_problems(root, name):
    found = quietly(name)
    assert found.sound, found.problems
    assert found.records == found.examined == (2 if name == NAMES[2] else 3)
    assert "nothing missing, nothing broken" in survey_lines(found)


@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [
        ("coco_2017_val", "instance", 80),
        ("coco_2017_val_panoptic_with_sem_seg", "panoptic", 133),
        ("ade20k_panoptic_val", "panoptic", 150),
        ("ade20k_full_sem_seg_val", "semantic", 847),
        ("cityscapes_fine_panoptic_val", "panoptic", 19),
        ("cityscapes_fine_instance_seg_val", "instance", 8),
        ("mapillary_vistas_panoptic_val", "panoptic", 65),
        ("keypoints_coco_2017_val", "keypoints", 1),
        ("voc_2007_val", "detection", 20),
    ],
)
def test_published_sets_are_described(name, task, classes):
    info = describe(name)
    assert (info.task, info.classes) == (task, classes)


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError, match="no_such_set"):
        describe("no_such_set")


def test_the_state_tells_whether_the_files_are_there(root):
    assert describe(NAMES[2]).state == "found"
    assert describe(NAMES[2]).root == str(root / "safetybarrier")
    (root / "safetybarrier/annotations/instances_train.json").unlink()
    assert describe(NAMES[2]).state == "partly"


def test_instances_of_a_panoptic_set_are_not_required():
    keys = {e.key: e.required for e in expected_files("ade20k_panoptic_val")}
    assert keys["panoptic_json"] and not keys["json_file"]


def test_a_missing_folder_is_answered_with_what_lies_there(tmp_path):
    (tmp_path / "mapillary-vistas").mkdir()
    said = near_miss(str(tmp_path / "mapillary_vistas/training/images"))
    assert said == f"{tmp_path} has no mapillary_vistas; it has: mapillary-vistas/"


def test_objects_and_pixels_are_counted(root):
    found = quietly(NAMES[0])
    content = json.loads(
        (root / "mapillary_vistas/training/panoptic/panoptic_2018.json").read_text()
    )
    segments = [s for a in content["annotations"] for s in a["segments_info"]]
    assert sum(found.objects.values()) == len(segments)
    assert sum(found.pixels.values()) == sum(s["area"] for s in segments)
    assert quietly(NAMES[1]).pixels == found.pixels  # the label maps say the same


def test_a_sample_decodes_fewer_but_looks_for_all_files(root):
    (root / "safetybarrier/images/train/site_train_0000.jpg").unlink()
    found = quietly(NAMES[2], sample=1)
    assert found.records == 2
    assert found.examined <= 1
    assert [m.endswith("site_train_0000.jpg") for m in found.missing] == [True]


def test_images_without_annotations_are_listed(root):
    file = root / "safetybarrier/annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
    file.write_text(json.dumps(content))
    found = quietly(NAMES[2])
    assert [e.endswith("site_train_0001.jpg") for e in found.empty] == [True]
    assert found.sound


def damaged_image(root):
    file = first_image(root)
    file.write_bytes(file.read_bytes()[:300])
    return NAMES[1], "Cannot decode"


def other_size(root):
    file = first_image(root)
    Image.new("RGB", (64, 48)).save(file)
    return NAMES[1], "but its image is 64x48"


def unknown_label(root):
    file = first_image(root, "mapillary_vistas/training/labels/*.png")
    labels = np.asarray(Image.open(file)).copy()
    labels[0, 0] = 200
    Image.fromarray(labels).save(file)
    return NAMES[1], r"has labels 200: neither a class \(0\.\.64\) nor the ignore label 65"


def colours_for_labels(root):
    file = first_image(root, "mapillary_vistas/training/labels/*.png")
    Image.open(file).convert("RGB").save(file)
    return NAMES[1], "3 channels"


def vanished_segment(root):
    file = root / "mapillary_vistas/training/panoptic/panoptic_2018.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segments_info"][0]["id"] = 1
    file.write_text(json.dumps(content))
    return NAMES[0], "(no pixel of segment 1|1 segment ids that its json does not list)"


def run_lengths_of_another_image(root):
    outline = {"size": [10, 10], "counts": [100]}
    return NAMES[2], _first_outline(root, outline, r"run lengths of size \[10, 10\]")


def _first_outline(root, outline, expected):
    file = root / "safetybarrier/annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = outline
    file.write_text(json.dumps(content))
    return expected


@pytest.mark.parametrize(
    "damage",
    [
        damaged_image,
        other_size,
        unknown_label,
        colours_for_labels,
        vanished_segment,
        run_lengths_of_another_image,
    ],
)
def test_damage_is_named(root, damage):
    name, expected = damage(root)
    found = quietly(name)
    assert found.problems
    for problem in found.problems:
        assert problem.startswith((str(root), "Cannot decode"))
    assert any(re.search(expected, p) for p in found.problems), found.problems


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        ([[1.0, 2.0, 3.0, 4.0]], "fewer than three corners"),
        ({"size": [96, 128], "counts": [5, 5]}, "run lengths do not add up"),
        ([], "no segmentation"),
        ("abc", "a segmentation of type str"),
    ],
)
def test_outlines_that_loaders_would_drop_or_break_on_are_named(root, outline, expected):
    file = str(root / "safetybarrier/images/train/site_train_0000.jpg")
    annotation = {"category_id": 0, "segmentation": outline, "id": 7}
    record = {"file_name": file, "annotations": [annotation]}
    finding = examine(record, IdNames(["a"], []), None)
    assert finding.problems == [f"{file}, annotation 7: {finding.problems[0].split(': ', 1)[1]}"]
    assert expected in finding.problems[0]


@pytest.mark.parametrize(("name", "panels"), list(zip(NAMES, (3, 2, 2))))
def test_each_kind_of_annotation_has_a_panel(root, name, panels):
    record = DatasetCatalog.get(name)[0]
    picture = draw_record(record, name)
    height, width = picture.shape[:2]
    assert width == panels * round(height * 128 / 96)
    first, *others = np.split(picture.astype(int), panels, axis=1)
    assert all(np.abs(panel - first).mean() > 5 for panel in others)


def test_the_sheet_holds_every_picture():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [(str(c), np.full((30, 90, 3), c, np.uint8)) for c in colours]
    sheet = contact_sheet(pictures, width=300)
    assert sheet.shape[1] == 300
    for colour in colours:
        assert (np.abs(sheet.astype(int) - colour).sum(2) < 3).sum() > 500


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"images": [', "is not valid JSON, perhaps cut off in a copy"),
        ('{"images": []}', "has no 'annotations'"),
        ("[]", "has no 'images' and no 'annotations'"),
    ],
)
def test_annotation_files_that_cannot_be_read_are_named(root, capsys, content, said):
    file = root / "mapillary_vistas/training/panoptic/panoptic_2018.json"
    file.write_text(content)
    arguments = Namespace(names=[NAMES[0]], sample=None, workers=1, limit=3)
    assert COMMANDS["check"](arguments) == 1
    assert f"CANNOT BE READ  {file} {said}" in capsys.readouterr().out


def test_coco_crowds_are_not_counted(tmp_path):
    from mask2former.data.catalogs import load_table

    write_coco(tmp_path, images=1)
    folder = tmp_path / "coco"
    name = "inspected_coco"
    register_instances(
        name,
        instance_classes(r for r in load_table("coco_panoptic") if r["isthing"]),
        image_root=str(folder / "train2017"),
        json_file=str(folder / "annotations/instances_train2017.json"),
    )
    try:
        found = quietly(name)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    content = json.loads((folder / "annotations/instances_train2017.json").read_text())
    assert sum(a["iscrowd"] for a in content["annotations"]) == 1
    assert sum(found.objects.values()) == len(content["annotations"]) - 1
    assert found.sound
