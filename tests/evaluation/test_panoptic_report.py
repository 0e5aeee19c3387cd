"""Acc_th, Prec_th and the numbers of single classes, by hand; predictions as files."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from evaluation.small_sets import panoptic_set, run
from PIL import Image

from detectron2.data import MetadataCatalog
from mask2former.evaluation import COCOPanopticEvaluator
from mask2former.evaluation.panoptic_statistics import image_statistics
from mask2former.evaluation.panoptic_tables import PanopticReport
from mask2former.evaluation.prediction_dump import PanopticPredictionDump

CATEGORIES = {
    1: {"name": "car", "isthing": 1},
    2: {"name": "person", "isthing": 1},
    3: {"name": "sky", "isthing": 0},
    4: {"name": "never", "isthing": 0},
}


def segments(pixels, kinds, **more):
    return [
        {"id": k, "category_id": c, "area": int((pixels == k).sum()), "iscrowd": 0, **more}
        for k, c in kinds.items()
    ]


@pytest.fixture
def report():
    """Ten by ten pixels: a car, a person and the sky, and a strip of void at the bottom."""
    truth = np.zeros((10, 10), np.uint32)
    truth[:4, :5], truth[:4, 5:], truth[4:9] = 1, 2, 3  # 20, 20 and 50 pixels; 10 of void
    found = np.full((10, 10), 3, np.uint32)  # sky everywhere else, the void included
    found[:4, :4] = 1  # 16 of the car's 20
    found[1:5, 5:] = 2  # 15 of the person's 20, and 5 of the sky
    statistics = image_statistics(
        truth,
        segments(truth, {1: 1, 2: 2, 3: 3}),
        found,
        segments(found, {1: 1, 2: 2, 3: 3}),
        set(CATEGORIES),
        0,
    )
    return PanopticReport([statistics], CATEGORIES)


def test_pixel_scores_by_hand(report):
    # Sky: 45 of its 50 pixels; predicted 64 pixels, 10 of them void.
    expected = {1: (16 / 20, 16 / 16), 2: (15 / 20, 15 / 20), 3: (45 / 50, 45 / 54)}
    assert report.pixel_scores.keys() == expected.keys()
    for category, scores in expected.items():
        assert report.pixel_scores[category] == pytest.approx(scores)


def test_only_things_are_averaged(report):
    assert report.things() == pytest.approx({"Acc_th": 77.5, "Prec_th": 87.5})


def test_quality_of_single_classes_by_hand(report):
    classes = report.classes()
    assert classes["PQ-car"] == pytest.approx(80)
    assert classes["SQ-person"] == pytest.approx(100 * 15 / 25)
    assert classes["RQ-sky"] == pytest.approx(100)
    assert math.isnan(classes["PQ-never"])
    assert len(classes) == 12


def test_table_has_a_row_for_every_class_that_occurs(report):
    lines = report.class_table().splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "class", "", "PQ", "SQ", "RQ", "Acc", "Prec",
    ]  # fmt: skip
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["car", "person", "sky"]


def test_without_a_matched_thing_there_is_no_pixel_score():
    report = PanopticReport([], CATEGORIES)
    assert all(math.isnan(value) for value in report.things().values())


@pytest.fixture
def dataset(tmp_path):
    name = f"report_{tmp_path.name}"
    yield name, panoptic_set(tmp_path, name)
    MetadataCatalog.remove(name)


def test_details_are_added_by_key_and_change_nothing_else(dataset, caplog):
    name, pairs = dataset
    with caplog.at_level(logging.INFO, logger="mask2former"):
        published = run(COCOPanopticEvaluator(name), pairs)["panoptic_seg"]
    assert len(published) == 9
    assert "Acc_th" in caplog.text and "class 1" in caplog.text
    detailed = run(COCOPanopticEvaluator(name, details=True), pairs)["panoptic_seg"]
    assert list(detailed)[:11] == [*published, "Acc_th", "Prec_th"]
    assert {k: detailed[k] for k in published} == published
    assert 0 < detailed["Acc_th"] <= 100
    assert detailed["PQ-class 2"] > 0


def test_predictions_are_written_as_png_and_json(dataset, tmp_path):
    _, pairs = dataset
    folder = tmp_path / "predictions" / "run 1"
    assert run(PanopticPredictionDump(str(folder)), pairs) == {}
    assert len(list(folder.iterdir())) == 2 * len(pairs)
    for record, output in pairs:
        ids, infos = output["panoptic_seg"]
        with Image.open(folder / f"{record['image_id']}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), ids.numpy())
        assert json.loads((folder / f"{record['image_id']}.json").read_text()) == infos


def test_more_than_255_segments_are_not_cut_off(tmp_path):
    ids = torch.arange(300, dtype=torch.int32).reshape(15, 20)
    output = {"panoptic_seg": (ids, [])}
    run(PanopticPredictionDump(str(tmp_path)), [({"image_id": "a"}, output)])
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), ids.numpy())
