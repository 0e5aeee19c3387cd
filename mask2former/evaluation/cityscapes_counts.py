"""What one Cityscapes image contributes to the scores: the numbers cityscapesscripts counts.

Same numbers as its ``assignGt2Preds`` and ``evaluatePair``, from one pass over the pixels instead
of one pass for every pair of masks.
"""

import numpy as np
from PIL import Image

from .errors import EvaluationError
from .panoptic_statistics import joint_areas

# Instance images hold label * 1000 + number; below are regions without instances, and groups.
_FIRST_INSTANCE = 1000


def read_labels(path: str) -> np.ndarray:
    """A ground-truth image of label or instance ids, int32 ``[H, W]``.

    Raises:
        EvaluationError: it is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.int32)
    except (OSError, SyntaxError, EOFError) as error:
        raise EvaluationError(f"Cannot read the ground truth {path}: {error}") from error


def instance_matches(
    gt: np.ndarray,
    masks: np.ndarray,
    labels: list,
    scores: list[float],
    evaluated: list[str],
    gt_path: str,
) -> dict:
    """Which predictions and objects of an image overlap, as the scripts' ``evaluateMatches`` wants.

    Args:
        gt: int32 ``[H, W]`` instance ids.
        masks: ``[N, H, W]``, not zero on the object.
        labels: the scripts' label of each mask; None: of no class.
        scores: of each mask.
        evaluated: names of the classes that count.
        gt_path: named in error messages.
    """
    from cityscapesscripts.helpers.labels import id2label
    from cityscapesscripts.helpers.labels import labels as all_labels

    if len(masks) and masks.shape[-2:] != gt.shape:
        raise _sizes_differ(tuple(masks.shape[-2:]), gt.shape, gt_path)
    all_areas = np.bincount(gt.reshape(-1))
    ids = np.flatnonzero(all_areas)
    areas = all_areas[ids]
    column_of = np.zeros(len(all_areas), np.int64)
    column_of[ids] = np.arange(len(ids))
    index = column_of[gt]  # [H, W]
    void = np.isin(ids, [label.id for label in all_labels if label.ignoreInEval])

    truth: dict[str, list[dict]] = {name: [] for name in evaluated}
    columns: dict[str, list[int]] = {name: [] for name in evaluated}
    for column, (instance, area) in enumerate(zip(ids.tolist(), areas.tolist())):
        label = instance if instance < _FIRST_INSTANCE else instance // _FIRST_INSTANCE
        name = id2label[label].name
        if name in truth:
            columns[name].append(column)
            truth[name].append(
                {
                    "instID": instance,
                    "labelID": label,
                    "pixelCount": area,
                    "medDist": -1,
                    "distConf": 0.0,
                    "matchedPred": [],
                }
            )

    predicted: dict[str, list[dict]] = {name: [] for name in evaluated}
    for mask, label, score in zip(masks, labels, scores):
        if label is None or label.name not in predicted:
            continue
        overlaps = _overlaps(index, mask != 0, len(ids))
        area = int(overlaps.sum())
        if not area:
            continue
        prediction = {
            "labelID": label.id,
            "pixelCount": area,
            "confidence": score,
            "voidIntersection": int(overlaps[void].sum()),
        }
        matched = []
        for column, instance in zip(columns[label.name], truth[label.name]):
            if intersection := int(overlaps[column]):
                instance["matchedPred"].append({**prediction, "intersection": intersection})
                other = {k: v for k, v in instance.items() if k != "matchedPred"}
                matched.append({**other, "intersection": intersection})
        predicted[label.name].append({**prediction, "matchedGt": matched})
    return {"groundTruth": truth, "prediction": predicted}


def _overlaps(index: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """Pixels of a mask on each of ``count`` regions; only the mask's box is looked at."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return np.zeros(count, np.int64)
    box = slice(rows[0], rows[-1] + 1)
    columns = np.flatnonzero(mask[box].any(0))
    box = box, slice(columns[0], columns[-1] + 1)
    return np.bincount(index[box][mask[box]], minlength=count)


def pixel_counts(
    pred: np.ndarray, gt: np.ndarray, instances: np.ndarray, gt_path: str
) -> tuple[np.ndarray, list[tuple]]:
    """Confusion of labels, and how much of every object was found.

    Args:
        pred: uint8 ``[H, W]`` label ids.
        gt: int32 ``[H, W]`` label ids.
        instances: int32 ``[H, W]`` instance ids.
        gt_path: named in error messages.

    Returns:
        int64 pixels by (ground truth, prediction), a row and a column per label id from 0, and per
        object (label, pixels, pixels predicted as its class, ... as any class of its category).

    Raises:
        EvaluationError: the sizes differ, or the ground truth has an unknown label.
    """
    from cityscapesscripts.helpers.labels import category2labels, id2label

    if pred.shape != gt.shape:
        raise _sizes_differ(pred.shape, gt.shape, gt_path)
    known = {i for i in id2label if i >= 0}
    confusion = np.zeros((max(known) + 1, max(known) + 1), np.int64)
    rows, columns, counts = joint_areas(gt.astype(np.uint32), pred.astype(np.uint32))
    if unknown := set(rows.tolist()) - known:
        raise EvaluationError(f"{gt_path} has pixels of the unknown label {min(unknown)}")
    confusion[rows, columns] = counts

    rows, columns, counts = joint_areas(instances.astype(np.uint32), pred.astype(np.uint32))
    found = []
    for instance in np.unique(rows[rows > _FIRST_INSTANCE]).tolist():
        label = id2label[instance // _FIRST_INSTANCE]
        if label.ignoreInEval:
            continue
        own = rows == instance
        relatives = [other.id for other in category2labels[label.category] if other.id >= 0]
        size, hits, category_hits = (
            int(counts[own & condition].sum())
            for condition in (True, columns == label.id, np.isin(columns, relatives))
        )
        found.append((label, size, hits, category_hits))
    return confusion, found


def _sizes_differ(pred: tuple, gt: tuple, gt_path: str) -> EvaluationError:
    return EvaluationError(
        f"The prediction for {gt_path} is {pred[0]}x{pred[1]} pixels, the ground truth "
        f"{gt[0]}x{gt[1]}"
    )
