"""Boundary AP: outlines by definition, overlaps by hand, AP equal to an independent package."""

import cv2
import numpy as np
import pytest
from evaluation.random_cases import detection_case, encode, rectangle

from mask2former.evaluation import EvaluationError
from mask2former.evaluation.boundary_ap import (
    boundary_average_precision,
    boundary_overlaps,
    boundary_width,
    mask_boundary,
)


def test_width_is_a_share_of_the_diagonal_and_at_least_one():
    assert boundary_width(480, 640) == 16  # 0.02 of 800
    assert boundary_width(10, 10) == 1
    assert boundary_width(480, 640, 0.005) == 4


@pytest.mark.parametrize("width", [1, 2, 7])
def test_boundary_is_the_mask_without_its_erosion(width):
    rng = np.random.default_rng(width)
    for _ in range(5):
        mask = np.roll(rectangle(rng, 40, 60), 3, 0).astype(np.uint8)
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        for _ in range(width):
            padded = cv2.erode(padded, np.ones((3, 3), np.uint8))
            padded[[0, -1]] = padded[:, [0, -1]] = 0
        np.testing.assert_array_equal(mask_boundary(mask, width), mask - padded[1:-1, 1:-1])


def test_the_images_frame_is_an_outline():
    boundary = mask_boundary(np.ones((6, 8), np.uint8), 2)
    assert boundary.sum() == 6 * 8 - 2 * 4


def test_an_empty_mask_has_no_boundary():
    assert mask_boundary(np.zeros((6, 8), np.uint8), 2).sum() == 0


def small_case(crowd=0):
    """A square of 40, found shrunk by 4 on every side, in an image whose boundaries are 2 wide."""
    truth, found = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    truth[10:50, 10:50], found[14:46, 14:46] = True, True
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": crowd, "area": 1600}
    annotation |= {"bbox": [10, 10, 40, 40], "segmentation": encode(truth)}
    image = {"id": 1, "height": 60, "width": 80}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1}]}
    result = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": encode(found)}
    return content, [result]


def test_overlap_is_the_smaller_of_mask_and_boundary():
    # Mask IoU is 32 * 32 / 1600 = 0.64, but the outlines do not touch.
    overlaps = boundary_overlaps(*small_case(), dilation_ratio=0.02, processes=1)
    assert overlaps[1, 1].tolist() == [[0.0]]
    # Boundaries half an image wide are the masks themselves.
    overlaps = boundary_overlaps(*small_case(), dilation_ratio=0.5, processes=1)
    assert overlaps[1, 1].tolist() == [[0.64]]


def test_crowds_overlap_by_masks_alone():
    overlaps = boundary_overlaps(*small_case(crowd=1), dilation_ratio=0.02, processes=1)
    assert overlaps[1, 1].tolist() == [[1.0]]


@pytest.mark.parametrize("seed", range(2))
def test_equals_the_boundary_mode_of_faster_coco_eval(seed):
    package = pytest.importorskip("faster_coco_eval")
    content, results = detection_case(seed)
    ours = boundary_average_precision(content, results, processes=1)
    gt = package.COCO(content, use_deepcopy=True)
    entries = [{k: v for k, v in r.items() if k != "bbox"} for r in results]
    theirs = package.COCOeval_faster(gt, gt.loadRes(entries), "boundary")
    theirs.run()
    assert 0.02 < ours.stats[0] < 0.9
    np.testing.assert_allclose(ours.eval["precision"], theirs.eval["precision"], atol=1e-6)


def test_processes_and_engines_give_the_same():
    content, results = detection_case(4)
    first = boundary_average_precision(content, results, processes=1)
    second = boundary_average_precision(content, results, processes=2, engine="pycocotools")
    np.testing.assert_allclose(first.stats, second.stats, atol=1e-6)
    assert "Average Precision" in first.summary


def test_masks_give_ordinary_ap_and_boxes_are_not_looked_at():
    content, results = detection_case(4)
    without = [{**result, "bbox": [0, 0, 0, 0]} for result in results]
    for iou_type in ("segm", "bbox", "boundary"):
        expected = boundary_average_precision(content, results, iou_type=iou_type, processes=1)
        actual = boundary_average_precision(content, without, iou_type=iou_type, processes=1)
        assert actual.stats == expected.stats
    assert (
        expected.stats[0] < boundary_average_precision(content, results, iou_type="segm").stats[0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "image 9, which is not in the ground truth"),
        ({"segmentation": [[0, 0, 1, 1]]}, "no run-length encoded segmentation"),
        ({"segmentation": encode(np.ones((5, 6)))}, r"\[5, 6\] pixels, but the image has \[60, 80"),
    ],
)
def test_results_that_do_not_fit_are_named(change, message):
    content, results = small_case()
    with pytest.raises(EvaluationError, match=message):
        boundary_average_precision(content, [{**results[0], **change}])


def test_results_that_are_no_objects_are_named():
    with pytest.raises(EvaluationError, match="Result 0 is a int"):
        boundary_average_precision(small_case()[0], [1])
