"""Panoptic quality of a data set: the average over its categories, and the offline comparison.

Result layout and conventions are panopticapi's (Kirillov et al., CVPR 2019)::

    {"All":    {"pq": ..., "sq": ..., "rq": ..., "n": ...},
     "Things": {...}, "Stuff": {...},
     "per_class": {category_id: {"pq": ..., "sq": ..., "rq": ...}}}

with values in [0, 1]. Categories that were neither annotated nor predicted do not count; a split
without any counted category gives zeros and ``n = 0`` (panopticapi divides by zero there).
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from .errors import EvaluationError
from .id_map import read_id_map
from .panoptic_statistics import FN, IOU, image_statistics
from .parallel import available_cores, worker_context

# Below this many images a worker process costs more than it saves.
_IMAGES_PER_PROCESS = 32


def panoptic_quality(
    per_image: Iterable[Mapping[int, np.ndarray]], categories: Mapping[int, dict]
) -> dict:
    """Averages image statistics.

    IoUs are added exactly (``math.fsum``): the order of the images does not matter, and any number
    of processes gives the same bits.

    Args:
        per_image: results of :func:`~.panoptic_statistics.image_statistics`.
        categories: category id -> dict with ``isthing``.

    Returns:
        The layout at the top of this file.
    """
    ious: dict[int, list[float]] = {category: [] for category in categories}
    counts = {category: np.zeros(FN + 1) for category in categories}
    for statistics in per_image:
        for category, values in statistics.items():
            ious[category].append(float(values[IOU]))
            counts[category] += values[: FN + 1]

    per_class, counted = {}, {}
    for category in categories:
        _, tp, fp, fn = counts[category]
        denominator = tp + 0.5 * fp + 0.5 * fn
        counted[category] = denominator > 0
        iou = math.fsum(ious[category])
        per_class[category] = {
            "pq": float(iou / denominator) if denominator else 0.0,
            "sq": float(iou / tp) if tp else 0.0,
            "rq": float(tp / denominator) if denominator else 0.0,
        }

    splits = {"All": (True, False), "Things": (True,), "Stuff": (False,)}
    results: dict = {}
    for split, kinds in splits.items():
        members = [
            per_class[c]
            for c, info in categories.items()
            if counted[c] and bool(info["isthing"]) in kinds
        ]
        n = len(members)
        results[split] = {
            key: sum(m[key] for m in members) / n if n else 0.0 for key in ("pq", "sq", "rq")
        }
        results[split]["n"] = n
    results["per_class"] = per_class
    return results


def pq_compute(
    gt_json_file: str,
    pred_json_file: str,
    gt_folder: str | None = None,
    pred_folder: str | None = None,
    processes: int | None = None,
) -> dict:
    """Compares predictions on disk (COCO panoptic format) with the ground truth.

    Args:
        gt_json_file: ground truth: ``images``, ``categories``, ``annotations``.
        pred_json_file: predictions: ``annotations`` with ``image_id``, ``file_name`` and
            ``segments_info``.
        gt_folder, pred_folder: folders of the PNGs; default: the JSON path without ``.json``.
        processes: worker processes; default: as many as pay off on this machine.

    Raises:
        FileNotFoundError: a file or folder is missing.
        EvaluationError: an image of the ground truth has no prediction.
        KeyError: a prediction contradicts itself, see ``image_statistics``.
    """
    gt_folder = gt_folder or gt_json_file.removesuffix(".json")
    pred_folder = pred_folder or pred_json_file.removesuffix(".json")
    for folder in (gt_folder, pred_folder):
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"No folder with panoptic PNGs at {folder}")
    with open(gt_json_file) as file:
        gt_json = json.load(file)
    with open(pred_json_file) as file:
        predictions = {a["image_id"]: a for a in json.load(file)["annotations"]}

    missing = [a["image_id"] for a in gt_json["annotations"] if a["image_id"] not in predictions]
    if missing:
        raise EvaluationError(
            f"{pred_json_file} has no prediction for {len(missing)} of "
            f"{len(gt_json['annotations'])} images, the first is image {missing[0]}"
        )
    categories = {category["id"]: category for category in gt_json["categories"]}
    jobs = [(a, predictions[a["image_id"]]) for a in gt_json["annotations"]]
    if processes is None:
        processes = min(available_cores(), len(jobs) // _IMAGES_PER_PROCESS)
    arguments = (gt_folder, pred_folder, set(categories))
    if processes <= 1:
        return panoptic_quality(_compare_files(jobs, *arguments), categories)
    with ProcessPoolExecutor(processes, worker_context()) as pool:
        parts = [
            pool.submit(_compare_files, jobs[first::processes], *arguments)
            for first in range(processes)
        ]
        per_image = [statistics for part in parts for statistics in part.result()]
    return panoptic_quality(per_image, categories)


def _compare_files(
    jobs: list[tuple[dict, dict]], gt_folder: str, pred_folder: str, category_ids: set[int]
) -> list[dict[int, np.ndarray]]:
    return [
        image_statistics(
            read_id_map(os.path.join(gt_folder, gt["file_name"])),
            gt["segments_info"],
            read_id_map(os.path.join(pred_folder, pred["file_name"])),
            pred["segments_info"],
            category_ids,
            gt["image_id"],
        )
        for gt, pred in jobs
    ]
