"""What one image contributes to panoptic quality: summed IoU, TP, FP and FN per category.

The measure is that of Kirillov et al., "Panoptic Segmentation", CVPR 2019; the fine print (crowd
and void handling, which area comes from where) follows panopticapi, so that published numbers
compare:

* ground-truth areas come from the JSON, predicted areas from the pixels;
* a pair matches when its categories agree, the ground truth is no crowd and IoU > 0.5, where the
  part of the prediction that lies on void is left out of the union;
* an unmatched prediction is forgiven when more than half of it lies on void or on the crowd region
  of its category (the last one listed, if an image has several).
"""

import numpy as np

from mask2former.ops import id_maps

from .errors import EvaluationError

VOID = 0
# Columns of an image's statistics. ACCURACY and PRECISION are sums over matched pairs, see
# panoptic_tables.pixel_scores; the others are panopticapi's.
IOU, TP, FP, FN, ACCURACY, PRECISION = range(6)


def joint_areas(
    a: np.ndarray, b: np.ndarray, fast: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts how often each pair of labels meets.

    Label maps are nearly constant along a row, so pixels are gathered into runs first, and only the
    runs (a few per cent of the pixels) are sorted.

    Args:
        a, b: uint32 maps of one shape.
        fast: count with a compiled kernel.

    Returns:
        labels of ``a``, labels of ``b`` and pixel counts (int64), one entry per pair that occurs,
        sorted by pair.
    """
    if fast and id_maps.applies(a, b):
        areas = id_maps.joint_areas(a, b)
        if areas is not None:
            return tuple(areas)
    a, b = np.ascontiguousarray(a).ravel(), np.ascontiguousarray(b).ravel()
    if not a.size:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    borders = np.flatnonzero((a[1:] != a[:-1]) | (b[1:] != b[:-1])) + 1
    starts = np.concatenate([[0], borders])
    lengths = np.diff(starts, append=a.size)
    pairs, index = np.unique(
        (a[starts].astype(np.uint64) << np.uint64(32)) | b[starts], return_inverse=True
    )
    counts = np.bincount(index, weights=lengths).astype(np.int64)
    labels_a = (pairs >> np.uint64(32)).astype(np.int64)
    return labels_a, (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64), counts


def image_statistics(
    gt_map: np.ndarray,
    gt_segments: list[dict],
    pred_map: np.ndarray,
    pred_segments: list[dict],
    category_ids: set[int],
    image_id: object,
    fast: bool = True,
) -> dict[int, np.ndarray]:
    """Statistics of one image.

    Args:
        gt_map: uint32 ``[H, W]`` ground-truth segment ids.
        gt_segments: dicts with ``id``, ``category_id``, ``area`` and ``iscrowd``.
        pred_map: uint32 ``[H, W]`` predicted segment ids.
        pred_segments: dicts with ``id`` and ``category_id``.
        category_ids: all category ids of the data set.
        image_id: named in error messages.
        fast: see :func:`joint_areas`.

    Returns:
        category id -> float64 ``[6]``: sum of IoU, TP, FP, FN, sums of accuracy and precision, for
        categories that were counted.

    Raises:
        KeyError: the predicted segments and pixels do not agree, or a category is unknown.
        EvaluationError: the two maps differ in size.
    """
    if gt_map.shape != pred_map.shape:
        raise EvaluationError(
            f"Image {image_id}: the prediction is {pred_map.shape[0]}x{pred_map.shape[1]} pixels, "
            f"its ground truth {gt_map.shape[0]}x{gt_map.shape[1]}"
        )
    gt, pred = _unique_by_id(gt_segments), _unique_by_id(pred_segments)
    gt_labels, pred_labels, counts = joint_areas(gt_map, pred_map, fast)
    _check_prediction(pred, pred_labels, category_ids, image_id)

    overlap = _overlap_matrix(gt, pred, gt_labels, pred_labels, counts)  # [G + 1, P]
    on_void, overlap = overlap[-1], overlap[:-1]
    pred_area = _areas(pred, pred_labels, counts)
    gt_area = np.array([s["area"] for s in gt], np.float64)
    gt_category = np.array([s["category_id"] for s in gt], np.int64)
    pred_category = np.array([s["category_id"] for s in pred], np.int64)
    crowd = np.array([bool(s.get("iscrowd", 0)) for s in gt], bool)

    union = gt_area[:, None] + (pred_area - on_void)[None] - overlap
    iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=(overlap > 0) & (union > 0))
    comparable = (gt_category[:, None] == pred_category[None]) & ~crowd[:, None]
    matched = comparable & (iou > 0.5)

    forgiven_area = on_void.copy()
    crowd_row = {int(gt_category[row]): row for row in np.flatnonzero(crowd)}
    for column, category in enumerate(pred_category.tolist()):
        if category in crowd_row:
            forgiven_area[column] += overlap[crowd_row[category], column]
    false_positive = ~matched.any(axis=0) & ~(forgiven_area > 0.5 * pred_area)
    false_negative = ~matched.any(axis=1) & ~crowd

    statistics: dict[int, np.ndarray] = {}

    def add(category: int, column: int, value: float) -> None:
        statistics.setdefault(int(category), np.zeros(6))[column] += value

    for row, column in zip(*np.nonzero(matched)):
        add(gt_category[row], IOU, iou[row, column])
        add(gt_category[row], TP, 1)
        add(gt_category[row], ACCURACY, overlap[row, column] / max(gt_area[row], 1))
        outside_void = pred_area[column] - on_void[column]
        add(gt_category[row], PRECISION, overlap[row, column] / outside_void)
    for category in pred_category[false_positive]:
        add(category, FP, 1)
    for category in gt_category[false_negative]:
        add(category, FN, 1)
    return statistics


def _unique_by_id(segments: list[dict]) -> list[dict]:
    return list({segment["id"]: segment for segment in segments}.values())


def _check_prediction(
    pred: list[dict], pred_labels: np.ndarray, category_ids: set[int], image_id: object
) -> None:
    ids = {segment["id"] for segment in pred}
    painted = set(pred_labels.tolist())
    if unlisted := painted - ids - {VOID}:
        raise KeyError(
            f"Image {image_id}: segment {min(unlisted)} is in the predicted map, "
            "but not in its segments_info"
        )
    if unpainted := ids - painted:
        raise KeyError(
            f"Image {image_id}: segments {sorted(unpainted)} are in the predicted segments_info, "
            "but own no pixel of the map"
        )
    if unknown := {segment["category_id"] for segment in pred} - category_ids:
        raise KeyError(
            f"Image {image_id}: predicted category {min(unknown)} is not a category of the data set"
        )


def _overlap_matrix(gt, pred, gt_labels, pred_labels, counts) -> np.ndarray:
    """Intersections ``[G + 1, P]``, float64; the last row is what lies on void."""
    row_of = {segment["id"]: row for row, segment in enumerate(gt)}
    column_of = {segment["id"]: column for column, segment in enumerate(pred)}
    overlap = np.zeros((len(gt) + 1, len(pred)))
    for g, p, count in zip(gt_labels.tolist(), pred_labels.tolist(), counts.tolist()):
        column = column_of.get(p)
        if column is None:
            continue
        if g in row_of:
            overlap[row_of[g], column] = count
        if g == VOID:
            overlap[-1, column] = count
    return overlap


def _areas(segments: list[dict], labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pixels of each segment, float64 ``[P]``."""
    area: dict[int, int] = {}
    for label, count in zip(labels.tolist(), counts.tolist()):
        area[label] = area.get(label, 0) + count
    return np.array([area[segment["id"]] for segment in segments], np.float64)
