"""Panoptic quality as panopticapi computes it (Kirillov et al., CVPR 2019), step by step.

Whole images are converted to ids in integer arithmetic, sorted with ``np.unique``, and segments are
looked up one pair at a time: what the speed of :mod:`mask2former.evaluation` is compared with.
"""

import json
from collections import defaultdict

import numpy as np
from PIL import Image

_OFFSET = 256**3


def pq_plainly(truth_file: str, predictions_file: str) -> dict[int, dict[str, float]]:
    """PQ, SQ and RQ of each category, in [0, 1].

    Args:
        truth_file, predictions_file: COCO panoptic JSON; the PNGs are in the folder of that name.
    """
    with open(truth_file) as file:
        truth = json.load(file)
    with open(predictions_file) as file:
        predictions = {a["image_id"]: a for a in json.load(file)["annotations"]}
    sums: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))  # IoU, TP, FP, FN
    for gt in truth["annotations"]:
        pred = predictions[gt["image_id"]]
        _add_image(
            sums,
            _ids(truth_file.removesuffix(".json"), gt["file_name"]),
            {s["id"]: s for s in gt["segments_info"]},
            _ids(predictions_file.removesuffix(".json"), pred["file_name"]),
            {s["id"]: dict(s) for s in pred["segments_info"]},
        )
    return {c["id"]: _qualities(*sums[c["id"]]) for c in truth["categories"]}


def _ids(folder: str, name: str) -> np.ndarray:
    rgb = np.array(Image.open(f"{folder}/{name}"), dtype=np.uint32)
    return rgb[:, :, 0] + 256 * rgb[:, :, 1] + 256 * 256 * rgb[:, :, 2]


def _add_image(sums: dict, gt_ids: np.ndarray, gt: dict, pred_ids: np.ndarray, pred: dict) -> None:
    for label, area in zip(*np.unique(pred_ids, return_counts=True)):
        if label:
            pred[int(label)]["area"] = int(area)
    pairs = gt_ids.astype(np.uint64) * _OFFSET + pred_ids.astype(np.uint64)
    overlap = {}
    for pair, area in zip(*np.unique(pairs, return_counts=True)):
        overlap[int(pair // _OFFSET), int(pair % _OFFSET)] = int(area)

    matched_gt, matched_pred = set(), set()
    for (g, p), intersection in overlap.items():
        if g not in gt or p not in pred or gt[g]["iscrowd"]:
            continue
        if gt[g]["category_id"] != pred[p]["category_id"]:
            continue
        union = pred[p]["area"] + gt[g]["area"] - intersection - overlap.get((0, p), 0)
        if intersection / union > 0.5:
            sums[gt[g]["category_id"]] += (intersection / union, 1, 0, 0)
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
        forgiven = overlap.get((0, p), 0)
        if segment["category_id"] in crowds:
            forgiven += overlap.get((crowds[segment["category_id"]], p), 0)
        if forgiven / segment["area"] <= 0.5:
            sums[segment["category_id"]] += (0, 0, 1, 0)


def _qualities(iou: float, tp: float, fp: float, fn: float) -> dict[str, float]:
    total = tp + 0.5 * fp + 0.5 * fn
    return {
        "pq": iou / total if total else 0.0,
        "sq": iou / tp if tp else 0.0,
        "rq": tp / total if total else 0.0,
    }
