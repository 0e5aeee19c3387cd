"""pq_compute against panopticapi's recorded numbers, and its behaviour on bad predictions."""

import json
import shutil

import numpy as np
import pytest
from parity_cases import ROOT, facts
from PIL import Image

from mask2former.evaluation import pq_compute
from mask2former.evaluation.id_map import read_id_map
from mask2former.evaluation.panoptic_quality import panoptic_quality
from mask2former.evaluation.panoptic_statistics import (
    image_statistics,
    joint_areas,
)

CASE = ROOT / "panoptic_quality"


def compute(folder=CASE, **kwargs):
    return pq_compute(
        str(folder / "gt.json"),
        str(folder / "pred.json"),
        str(folder / "gt"),
        str(folder / "pred"),
        **kwargs,
    )


def test_results_equal_panopticapi():
    expected = facts("panoptic_quality", "expected")["results"]
    results = compute()
    assert set(results) == {"All", "Things", "Stuff", "per_class"}
    for split in ("All", "Things", "Stuff"):
        assert results[split] == pytest.approx(expected[split], abs=1e-12)
    assert {str(c) for c in results["per_class"]} == set(expected["per_class"])
    for category, values in results["per_class"].items():
        assert values == pytest.approx(expected["per_class"][str(category)], abs=1e-12)


def test_counts_of_every_image_equal_panopticapi():
    expected = facts("panoptic_quality", "expected")["per_image_per_category_counts"]
    gt_json, pred_json = (json.loads((CASE / f"{n}.json").read_text()) for n in ("gt", "pred"))
    predictions = {a["image_id"]: a for a in pred_json["annotations"]}
    categories = {c["id"] for c in gt_json["categories"]}
    for gt in gt_json["annotations"]:
        pred = predictions[gt["image_id"]]
        statistics = image_statistics(
            read_id_map(str(CASE / "gt" / gt["file_name"])),
            gt["segments_info"],
            read_id_map(str(CASE / "pred" / pred["file_name"])),
            pred["segments_info"],
            categories,
            gt["image_id"],
        )
        counts = {
            str(c): dict(zip(("iou_sum", "tp", "fp", "fn"), v)) for c, v in statistics.items()
        }
        wanted = expected[str(gt["image_id"])]
        assert counts.keys() == wanted.keys()
        for category in wanted:
            assert counts[category] == pytest.approx(wanted[category], abs=1e-12)


def test_any_number_of_processes_gives_the_same_bits():
    assert compute(processes=3) == compute(processes=1)


def test_pairs_are_counted_as_by_sorting_all_pixels():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, (37, 53)).astype(np.uint32)
    b = np.repeat(rng.integers(0, 2**24, 37), 53).reshape(37, 53).astype(np.uint32)
    pairs, counts = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1, return_counts=True)
    labels_a, labels_b, joint = joint_areas(a, b)
    np.testing.assert_array_equal(np.stack([labels_a, labels_b]), pairs)
    np.testing.assert_array_equal(joint, counts)


def test_split_without_counted_category_gives_zeros():
    statistics = [{1: np.array([0.75, 1, 0, 0])}]
    results = panoptic_quality(statistics, {1: {"isthing": 1}, 2: {"isthing": 0}})
    assert results["Stuff"] == {"pq": 0.0, "sq": 0.0, "rq": 0.0, "n": 0}
    assert results["Things"]["pq"] == results["All"]["pq"] == 0.75


def test_overlap_of_exactly_one_half_is_no_match():
    gt = np.ones((1, 4), np.uint32)
    pred = np.array([[1, 1, 0, 0]], np.uint32)
    segments = [{"id": 1, "category_id": 7, "area": 4, "iscrowd": 0}]
    statistics = image_statistics(gt, segments, pred, [{"id": 1, "category_id": 7}], {7}, 0)
    np.testing.assert_array_equal(statistics[7], [0, 0, 1, 1, 0, 0])


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([], "segment 1 is in the predicted map"),
        ([{"id": 1, "category_id": 7}, {"id": 2, "category_id": 7}], r"segments \[2\].*no pixel"),
        ([{"id": 1, "category_id": 8}], "category 8 is not a category"),
    ],
)
def test_contradicting_predictions_are_named(segments, message):
    ones = np.ones((2, 2), np.uint32)
    gt = [{"id": 1, "category_id": 7, "area": 4, "iscrowd": 0}]
    with pytest.raises(KeyError, match=f"Image 42: .*{message}"):
        image_statistics(ones, gt, ones, segments, {7}, 42)


def test_missing_prediction_is_named(tmp_path):
    shutil.copytree(CASE, tmp_path / "case")
    path = tmp_path / "case" / "pred.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 3]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no prediction for 1 of 7 images, the first is image 3"):
        compute(tmp_path / "case")


def test_unreadable_png_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png"):
        read_id_map(str(path))


RGB = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4
KINDS = {
    "RGB": Image.fromarray(RGB),
    "RGBA": Image.fromarray(RGB).convert("RGBA"),
    "palette": Image.fromarray(RGB).quantize(16),
    "grey": Image.fromarray(RGB[..., 0]),
    "another format": Image.fromarray(RGB),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_red_green_blue_in_any_kind_of_file(kind, tmp_path):
    path = tmp_path / "map.png"
    KINDS[kind].save(path, "BMP" if kind == "another format" else "PNG")
    rgb = np.asarray(KINDS[kind].convert("RGB"), np.uint32)
    ids = read_id_map(str(path))
    assert ids.dtype == np.uint32
    np.testing.assert_array_equal(ids, rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2])


def test_a_truncated_file_is_not_taken_for_a_map(tmp_path):
    path = tmp_path / "map.png"
    KINDS["RGB"].save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"Cannot read the panoptic PNG .*map\.png"):
        read_id_map(str(path))
