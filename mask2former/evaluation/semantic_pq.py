"""PQ of semantic predictions: every class of an image counts as one stuff segment.

As MaskFormer reports it (Cheng et al., NeurIPS 2021, "PQ^St"): recognition and segmentation quality
of a semantic model in the terms of a panoptic one, from its ``sem_seg_predictions.json``.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from .errors import EvaluationError
from .panoptic_quality import panoptic_quality
from .panoptic_statistics import VOID, image_statistics, joint_areas
from .parallel import map_images


@dataclass
class SemanticQuality:
    """What the predictions are worth.

    Args:
        pq: the layout of :mod:`~.panoptic_quality`; "Things" is empty.
        miou: mean IoU in [0, 1] over classes that were annotated or predicted.
        images: how many were compared.
    """

    pq: dict
    miou: float
    images: int


def semantic_panoptic_quality(
    predictions: Sequence[dict],
    ground_truth: Mapping[str, str],
    class_names: Sequence[str],
    *,
    ignore_label: int = 255,
    contiguous_id: Mapping[int, int] | None = None,
    processes: int | None = None,
    progress: bool = False,
) -> SemanticQuality:
    """Compares the predictions of a semantic evaluation with label images.

    Args:
        predictions: content of ``sem_seg_predictions.json``: ``file_name``, ``category_id`` and
            ``segmentation`` (run lengths), one entry per class and image.
        ground_truth: image file -> label image of contiguous ids. Images are found by their full
            name, or else by the name without folder and ending.
        class_names: of the contiguous ids 0, 1, ...
        ignore_label: of pixels that do not count.
        contiguous_id: data set id -> contiguous id, where they differ.

    Raises:
        EvaluationError: predictions and ground truth do not belong together.
    """
    by_image: dict[str, list[dict]] = {}
    for prediction in predictions:
        by_image.setdefault(prediction["file_name"], []).append(prediction)
    if not by_image:
        raise EvaluationError("There are no predictions to evaluate")
    by_stem = {_stem(name): path for name, path in ground_truth.items()}
    jobs = []
    for name, entries in by_image.items():
        path = ground_truth.get(name) or by_stem.get(_stem(name))
        if path is None:
            raise EvaluationError(
                f"{name} was predicted, but is no image of the data set: are these the predictions "
                "for another one?"
            )
        jobs.append((path, [_with_contiguous_id(e, contiguous_id, class_names) for e in entries]))
    work = partial(_compare, classes=len(class_names), ignore_label=ignore_label)
    title = "Comparing" if progress else ""
    statistics, confusion = [], 0
    for own, pixels in map_images(work, jobs, processes=processes, progress=title):
        statistics.append(own)
        confusion = confusion + pixels
    categories = {i: {"id": i, "name": name, "isthing": 0} for i, name in enumerate(class_names)}
    return SemanticQuality(panoptic_quality(statistics, categories), _miou(confusion), len(jobs))


def _with_contiguous_id(
    entry: dict, contiguous_id: Mapping[int, int] | None, class_names: Sequence[str]
) -> dict:
    category = entry["category_id"]
    label = category if contiguous_id is None else contiguous_id.get(category)
    if label is None or not 0 <= label < len(class_names):
        raise EvaluationError(
            f"category_id {category} (in the prediction for {entry['file_name']}) is none of the "
            f"{len(class_names)} classes of the data set"
        )
    return {"label": label, "segmentation": entry["segmentation"]}


def _compare(job: tuple, *, classes: int, ignore_label: int) -> tuple[dict, np.ndarray]:
    """PQ statistics of an image, and pixels by (ground truth, prediction).

    The last row and column of the pixels are "ignored" and "not predicted".
    """
    path, entries = job
    gt = _read_labels(path, classes, ignore_label)
    pred = np.full(gt.shape, VOID, np.uint32)
    for entry in entries:
        if tuple(entry["segmentation"]["size"]) != gt.shape:
            height, width = entry["segmentation"]["size"]
            raise EvaluationError(
                f"The prediction for {path} is {height}x{width} pixels, the label image "
                f"{gt.shape[0]}x{gt.shape[1]}"
            )
        # Segment ids are labels + 1, so that 0 can be void.
        pred[np.array(mask_util.decode(entry["segmentation"])) > 0] = entry["label"] + 1
    labels, areas = np.unique(gt[gt != VOID], return_counts=True)
    gt_segments = [
        {"id": label, "category_id": label - 1, "area": area, "iscrowd": 0}
        for label, area in zip(labels.tolist(), areas.tolist())
    ]
    pred_segments = [
        {"id": label, "category_id": label - 1} for label in np.unique(pred[pred != VOID]).tolist()
    ]
    ids = set(range(classes))
    statistics = image_statistics(gt, gt_segments, pred, pred_segments, ids, path)

    pixels = np.zeros((classes + 1, classes + 1), np.int64)
    rows, columns, counts = joint_areas(gt, pred)
    pixels[rows - 1, columns - 1] = counts  # void becomes the last one
    return statistics, pixels


def _read_labels(path: str, classes: int, ignore_label: int) -> np.ndarray:
    """uint32 ``[H, W]``: label + 1, or 0 where ignored."""
    try:
        with Image.open(path) as image:
            labels = np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, EOFError) as error:
        raise EvaluationError(f"Cannot read the label image {path}: {error}") from error
    ignored = labels == ignore_label
    if labels.ndim != 2 or labels[~ignored].max(initial=0) >= classes:
        raise EvaluationError(
            f"{path} is no label image of {classes} classes (and {ignore_label} for ignored pixels)"
        )
    return np.where(ignored, VOID, labels + 1).astype(np.uint32)


def _miou(pixels: np.ndarray) -> float:
    """Over pixels that are not ignored; a pixel without a prediction is a miss."""
    valid = pixels[:-1]
    hit = valid.diagonal().astype(float)
    union = valid.sum(1) + valid[:, :-1].sum(0) - hit
    occurs = union > 0
    return float((hit[occurs] / union[occurs]).mean()) if occurs.any() else float("nan")


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
