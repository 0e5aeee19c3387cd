"""AP by faster-coco-eval equals that of pycocotools and of the lvis package."""

import importlib.util
import sys

import numpy as np
import pytest
from evaluation.random_cases import detection_case, encode

from mask2former.evaluation import EvaluationError, average_precision
from mask2former.evaluation.average_precision import (
    choose_engine,
    coco_average_precision,
    lvis_average_precision,
)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_fast_equals_pycocotools(seed, iou_type):
    content, results = detection_case(seed)
    fast = coco_average_precision(content, results, iou_type, engine="fast")
    slow = coco_average_precision(content, results, iou_type, engine="pycocotools")
    assert 0.05 < slow.stats[0] < 0.95
    np.testing.assert_allclose(fast.stats, slow.stats, atol=1e-6)
    # All thresholds, recalls, classes, areas and limits; with it AP of every class.
    np.testing.assert_allclose(fast.eval["precision"], slow.eval["precision"], atol=1e-6)


def test_fast_equals_pycocotools_on_some_images_only():
    content, results = detection_case(5)
    some = [image["id"] for image in content["images"][::2]]
    fast, slow = (
        coco_average_precision(content, results, "segm", engine=engine, image_ids=some)
        for engine in ("fast", "pycocotools")
    )
    np.testing.assert_allclose(fast.stats, slow.stats, atol=1e-6)
    everywhere = coco_average_precision(content, results, "segm")
    assert fast.stats[0] != pytest.approx(everywhere.stats[0])


def test_uncompressed_crowds_and_polygons_count_alike():
    content, results = detection_case(1)
    for annotation in content["annotations"][::2]:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    crowd = content["annotations"][1]
    height, width = sizes[crowd["image_id"]]
    counts = [10, height * width // 2, height * width - 10 - height * width // 2]
    crowd |= {"iscrowd": 1, "segmentation": {"size": [height, width], "counts": counts}}
    fast, slow = (
        coco_average_precision(content, results, "segm", engine=engine)
        for engine in ("fast", "pycocotools")
    )
    np.testing.assert_allclose(fast.eval["precision"], slow.eval["precision"], atol=1e-6)


@pytest.mark.parametrize("limits", [(1, 10, 100), (1, 2, 3)])
def test_limits_of_detections_count_alike(limits):
    content, results = detection_case(2, images=6)
    fast, slow = (
        coco_average_precision(content, results, "segm", engine=engine, limits=limits)
        for engine in ("fast", "pycocotools")
    )
    np.testing.assert_allclose(fast.eval["precision"], slow.eval["precision"], atol=1e-6)


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
def test_inputs_stay_as_they_are_and_ids_may_be_names(engine):
    content, results = detection_case(3, images=5)
    by_number = coco_average_precision(content, results, "segm", engine=engine)
    for entry in [*content["annotations"], *results]:
        entry["image_id"] = f"ADE_val_{entry['image_id']:08}"
    for image in content["images"]:
        image["id"] = f"ADE_val_{image['id']:08}"
    keys = [set(entry) for entry in (*content["annotations"], *results)]
    by_name = coco_average_precision(content, results, "segm", engine=engine)
    assert by_name.stats == by_number.stats
    assert [set(entry) for entry in (*content["annotations"], *results)] == keys


@pytest.mark.skipif(importlib.util.find_spec("lvis") is None, reason="needs the lvis package")
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_fast_equals_lvis(seed, iou_type):
    content, results = detection_case(seed, lvis=True)
    for limit in (300, 3):
        fast, slow = (
            lvis_average_precision(content, results, iou_type, engine=engine, limit=limit)
            for engine in ("fast", "pycocotools")
        )
        assert len(fast.stats) == 9
        np.testing.assert_allclose(fast.stats, slow.stats, atol=1e-6)
        np.testing.assert_allclose(fast.eval["precision"], slow.eval["precision"], atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("lvis") is None, reason="needs the lvis package")
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_fast_equals_lvis_on_empty_detections_and_images_that_say_nothing(iou_type):
    content, results = detection_case(4, images=8, lvis=True)
    size = [content["images"][0][side] for side in ("height", "width")]
    nothing = {"segmentation": encode(np.zeros(size, bool)), "bbox": [3.0, 4.0, 0.0, 9.0]}
    first = results[0] | nothing | {"score": 1.0}
    bare = {"id": 999, "height": 9, "width": 9}
    bare |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    content["images"].append(bare)
    stray = results[0] | {"image_id": 999, "segmentation": encode(np.ones((9, 9), bool))}
    fast, slow = (
        lvis_average_precision(content, [first, *results, stray], iou_type, engine=engine)
        for engine in ("fast", "pycocotools")
    )
    np.testing.assert_allclose(fast.eval["precision"], slow.eval["precision"], atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("lvis") is None, reason="needs the lvis package")
def test_lvis_scores_nothing_but_empty_masks_as_zero():
    content, results = detection_case(4, images=3, lvis=True)
    size = [content["images"][0][side] for side in ("height", "width")]
    empty = [results[0] | {"segmentation": encode(np.zeros(size, bool))}]
    fast, slow = (
        lvis_average_precision(content, empty, "segm", engine=engine).stats
        for engine in ("fast", "pycocotools")
    )
    assert fast == slow
    assert fast[0] == 0


def test_lvis_counts_false_alarms_only_where_the_class_is_known_to_be_absent():
    content, _ = detection_case(0, images=3, lvis=True)
    first = content["annotations"][0]
    perfect = [
        {k: a[k] for k in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.5}
        for a in content["annotations"]
    ]
    alarm = {**perfect[0], "score": 0.9}
    absent = next(
        i
        for i in content["images"]
        if all(
            (a["image_id"], a["category_id"]) != (i["id"], first["category_id"])
            for a in content["annotations"]
        )
    )
    alarm["image_id"] = absent["id"]
    absent["neg_category_ids"] = []
    assert lvis_average_precision(content, [*perfect, alarm], "bbox").stats[0] == pytest.approx(1)
    absent["neg_category_ids"] = [first["category_id"]]
    assert lvis_average_precision(content, [*perfect, alarm], "bbox").stats[0] < 0.95


def test_without_the_fast_package_pycocotools_takes_over_aloud(monkeypatch, caplog):
    monkeypatch.setattr(average_precision.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("INFO", logger="mask2former"):
        assert choose_engine("fast") == "pycocotools"
    assert "faster-coco-eval is not installed" in caplog.text


def test_unknown_images_are_named():
    content, results = detection_case(0, images=2)
    results[0]["image_id"] = 999
    with pytest.raises(EvaluationError, match="Image 999 was predicted"):
        coco_average_precision(content, results, "segm")


def test_lvis_needs_no_lvis_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lvis", None)
    content, results = detection_case(0, images=5, lvis=True)
    assert lvis_average_precision(content, results, "segm").stats[0] > 0
    with pytest.raises(ModuleNotFoundError, match="pip install lvis"):
        lvis_average_precision(content, results, "segm", engine="pycocotools")
