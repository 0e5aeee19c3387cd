"""Panoptic quality of PNG files, for machines without panopticapi (not on the package index).

The rules, down to which area comes from where, are panopticapi's (Kirillov et al., "Panoptic
Segmentation", CVPR 2019): the area of an annotated segment is the JSON's, that of a predicted one
its pixels'; void and crowd regions of the same category forgive predictions.
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from PIL import Image

__all__ = ["pq_compute"]

_VOID = 0
# Ids are 24 bits wide (three colour channels), so a pair of them fits in 48.
_OFFSET = 256**3


def pq_compute(gt_json_file: str, pred_json_file: str, gt_folder: str, pred_folder: str) -> dict:
    """Compares predictions on disk with the ground truth; both in COCO's panoptic format.

    Returns:
        ``{"All": {"pq", "sq", "rq", "n"}, "Things": ..., "Stuff": ..., "per_class": {id: ...}}``
        with values in [0, 1]. Categories that occur nowhere do not count.

    Raises:
        ValueError: an image has no prediction.
        KeyError: a prediction's PNG and JSON contradict each other, or its category is unknown.
    """
    with open(gt_json_file) as file:
        truth = json.load(file)
    with open(pred_json_file) as file:
        predictions = {a["image_id"]: a for a in json.load(file)["annotations"]}
    categories = {category["id"]: category for category in truth["categories"]}
    sums: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))  # IoU, TP, FP, FN
    for gt in truth["annotations"]:
        image_id = gt["image_id"]
        if image_id not in predictions:
            raise ValueError(f"{pred_json_file}: no prediction for the image with id {image_id}")
        pred = predictions[image_id]
        gt_ids = _read_ids(os.path.join(gt_folder, gt["file_name"]))
        pred_ids = _read_ids(os.path.join(pred_folder, pred["file_name"]))
        if gt_ids.shape != pred_ids.shape:
            raise ValueError(
                f"Image {image_id}: the prediction is {pred_ids.shape} (height, width), "
                f"{gt['file_name']} in {gt_folder} is {gt_ids.shape}"
            )
        segments = _predicted_segments(pred, pred_ids, categories)
        _add_image(sums, gt_ids, {s["id"]: s for s in gt["segments_info"]}, pred_ids, segments)
    return _averages(sums, categories)


def _read_ids(path: str) -> np.ndarray:
    """``[H, W]`` uint64: R + 256 G + 256^2 B."""
    rgb = np.asarray(Image.open(path).convert("RGB"), dtype=np.uint64)
    return rgb @ np.array([1, 256, 256**2], dtype=np.uint64)


def _predicted_segments(pred: Mapping, ids: np.ndarray, categories: Mapping) -> dict[int, dict]:
    """Segment id -> segment with its ``area`` in pixels."""
    labels, areas = np.unique(ids, return_counts=True)
    area_of = dict(zip(labels.tolist(), areas.tolist()))
    area_of.pop(_VOID, None)
    segments = {s["id"]: s for s in pred["segments_info"]}
    where = f"Image {pred['image_id']}"
    for label in area_of:
        if label not in segments:
            raise KeyError(f"{where}: segment {label} is in the PNG and not in segments_info")
    for label, segment in segments.items():
        if label not in area_of:
            raise KeyError(f"{where}: segment {label} is in segments_info and not in the PNG")
        if segment["category_id"] not in categories:
            raise KeyError(
                f"{where}: segment {label} has the unknown category_id {segment['category_id']}"
            )
    return {label: {**segment, "area": area_of[label]} for label, segment in segments.items()}


def _add_image(
    sums: dict[int, np.ndarray],
    gt_ids: np.ndarray,
    gt: Mapping[int, Mapping],
    pred_ids: np.ndarray,
    pred: Mapping[int, Mapping],
) -> None:
    pairs, areas = np.unique(gt_ids * np.uint64(_OFFSET) + pred_ids, return_counts=True)
    overlap = {divmod(pair, _OFFSET): area for pair, area in zip(pairs.tolist(), areas.tolist())}

    matched_gt, matched_pred = set(), set()
    for (g, p), intersection in overlap.items():
        if g not in gt or p not in pred or gt[g]["iscrowd"]:
            continue
        category = gt[g]["category_id"]
        if category != pred[p]["category_id"]:
            continue
        union = pred[p]["area"] + gt[g]["area"] - intersection - overlap.get((_VOID, p), 0)
        iou = intersection / union
        if iou > 0.5:  # at most one prediction can do that
            sums[category] += (iou, 1, 0, 0)
            matched_gt.add(g)
            matched_pred.add(p)

    crowds = {}
    for g, segment in gt.items():
        if segment["iscrowd"]:
            crowds[segment["category_id"]] = g
        elif g not in matched_gt:
            sums[segment["category_id"]] += (0, 0, 0, 1)

    for p, segment in pred.items():
        if p in matched_pred:
            continue
        category = segment["category_id"]
        forgiven = overlap.get((_VOID, p), 0)
        if category in crowds:
            forgiven += overlap.get((crowds[category], p), 0)
        if forgiven / segment["area"] <= 0.5:
            sums[category] += (0, 0, 1, 0)


def _averages(sums: Mapping[int, np.ndarray], categories: Mapping[int, Mapping]) -> dict:
    per_class, counted = {}, set()
    for category in categories:
        iou, tp, fp, fn = sums[category].tolist()
        total = tp + 0.5 * fp + 0.5 * fn
        if total:
            counted.add(category)
        per_class[category] = {
            "pq": iou / total if total else 0.0,
            "sq": iou / tp if tp else 0.0,
            "rq": tp / total if total else 0.0,
        }
    results: dict = {"per_class": per_class}
    for name, kinds in (("All", (0, 1)), ("Things", (1,)), ("Stuff", (0,))):
        members = [per_class[c] for c in counted if int(categories[c]["isthing"]) in kinds]
        n = len(members)
        means = {k: sum(m[k] for m in members) / n if n else 0.0 for k in ("pq", "sq", "rq")}
        results[name] = {**means, "n": n}
    return results
