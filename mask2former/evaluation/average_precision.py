"""COCO and LVIS average precision, by faster-coco-eval or by the reference packages.

Both give the same numbers (a test compares them on random detections); faster-coco-eval is C++ and
needs a fraction of the time and memory. The measure is that of Lin et al., "Microsoft COCO", and of
Gupta et al., "LVIS", CVPR 2019.
"""

import contextlib
import copy
import importlib
import importlib.util
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as mask_api

from .errors import EvaluationError
from .legacy_numpy import give_legacy_numpy

logger = logging.getLogger(__name__)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
LVIS_METRICS = (*METRICS, "APr", "APc", "APf")
_AREAS = ("all", "small", "medium", "large")
_FREQUENCIES = ("r", "c", "f")


@dataclass
class AveragePrecision:
    """What detectron2's COCOEvaluator reads from an evaluation.

    Args:
        stats: the numbers of ``METRICS`` (or ``LVIS_METRICS``) in [0, 1], -1 where nothing counts.
        eval: ``precision`` float ``[IoU thresholds, recalls, classes, areas, limits]``.
        summary: the lines that COCO's own tools print.
    """

    stats: list[float]
    eval: dict = field(default_factory=dict)
    summary: str = ""


def choose_engine(engine: str, package: str = "pycocotools") -> str:
    """``"fast"`` where faster-coco-eval is installed and wanted, else ``package``.

    Args:
        engine: TEST.COCO_EVAL, "fast" or "pycocotools".
    """
    if engine not in ("fast", "pycocotools"):
        raise ValueError(f"TEST.COCO_EVAL must be fast or pycocotools, not {engine!r}")
    if engine == "fast" and importlib.util.find_spec("faster_coco_eval") is None:
        logger.info("faster-coco-eval is not installed: AP comes from %s, which is slower", package)
        return "pycocotools"
    return engine


def coco_average_precision(
    ground_truth: dict,
    results: list[dict],
    iou_type: str,
    *,
    engine: str = "fast",
    limits: tuple[int, ...] = (1, 10, 100),
    image_ids: list | None = None,
    overlaps: Mapping[tuple, np.ndarray] | None = None,
) -> AveragePrecision:
    """AP by COCO's rules.

    Args:
        ground_truth: content of a COCO instance file.
        results: COCO results with data set category ids; not empty; not modified.
        iou_type: "bbox" or "segm"; with "segm" areas come from the masks.
        limits: detections an image, ascending; AP is at the last.
        image_ids: only these images.
        overlaps: (image id, category id) -> ``[D, G]`` to use in place of mask IoU; detections by
            falling score, at most ``limits[-1]``, ground truth in the file's order.
    """
    results = _entries(results, iou_type, ground_truth)
    ap = _fast if choose_engine(engine) == "fast" else _pycocotools
    precision, summary = ap(ground_truth, results, iou_type, list(limits), image_ids, overlaps)
    return AveragePrecision(_statistics(precision), {"precision": precision}, summary)


def lvis_average_precision(
    ground_truth: dict,
    results: list[dict],
    iou_type: str,
    *,
    engine: str = "fast",
    limit: int = 300,
) -> AveragePrecision:
    """AP by LVIS' rules: detections count only where the class is known to be present or absent.

    Args:
        ground_truth: content of an LVIS file (images with ``neg_category_ids`` and
            ``not_exhaustive_category_ids``, categories with ``frequency``).
        limit: detections an image.

    Raises:
        ModuleNotFoundError: neither faster-coco-eval nor lvis is installed.
    """
    results = _best_of_each_image(_entries(results, iou_type, ground_truth), limit)
    if choose_engine(engine, "lvis") == "fast":
        counted = _counted_by_lvis(ground_truth, results, iou_type)
        precision, summary = _fast(*counted, iou_type, [limit], None, lvis=True)
    else:
        precision, summary = _lvis(ground_truth, results, iou_type, limit)
    groups = [
        [i for i, c in enumerate(_by_id(ground_truth["categories"])) if c["frequency"] == frequency]
        for frequency in _FREQUENCIES
    ]
    by_frequency = [_mean(precision[:, :, group, 0, -1]) for group in groups]
    stats = _statistics(precision) + by_frequency
    return AveragePrecision(stats, {"precision": precision}, summary)


def _entries(results: list[dict], iou_type: str, ground_truth: dict) -> list[dict]:
    """Copies for the packages to write into; without a box, the area is taken from the mask."""
    if unknown := {result["image_id"] for result in results}.difference(_ids(ground_truth)):
        raise EvaluationError(
            f"Image {min(unknown)} was predicted, but is not in the annotation file (which has "
            f"{len(ground_truth['images'])} images)"
        )
    keep = {"segm": "segmentation", "bbox": "bbox"}[iou_type]
    return [{k: r[k] for k in ("image_id", "category_id", "score", keep)} for r in results]


def _best_of_each_image(results: list[dict], limit: int) -> list[dict]:
    by_image: dict = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    for entries in by_image.values():
        if len(entries) > limit:
            entries.sort(key=lambda entry: entry["score"], reverse=True)
            del entries[limit:]
    return [entry for entries in by_image.values() for entry in entries]


def _counted_by_lvis(ground_truth, results, iou_type) -> tuple[dict, list[dict]]:
    """What the lvis package looks at: no empty entries, no classes that an image says nothing of.

    Faster-coco-eval counts empty entries, and fails on images of which all detections are dropped.
    """
    area = {"segm": lambda r: mask_api.area(r["segmentation"]), "bbox": lambda r: _area(r["bbox"])}
    annotations = [a for a in ground_truth.get("annotations", []) if a["area"] > 0]
    known = {(a["image_id"], a["category_id"]) for a in annotations}
    for image in ground_truth["images"]:
        known.update((image["id"], category) for category in image["neg_category_ids"])
    results = [
        r for r in results if (r["image_id"], r["category_id"]) in known and area[iou_type](r) > 0
    ]
    return {**ground_truth, "annotations": annotations}, results


def _area(box) -> float:
    return box[2] * box[3]


def _fast(ground_truth, results, iou_type, limits, image_ids, overlaps=None, lvis=False):
    from faster_coco_eval import COCO, COCOeval_faster

    lines: list[str] = []
    # It takes whole numbers for image ids only; those of ADE20K are file names. Copies, because it
    # writes into what it gets.
    number = {image_id: i for i, image_id in enumerate(sorted(_ids(ground_truth)), start=1)}
    images = [{**image, "id": number[image["id"]]} for image in ground_truth["images"]]
    annotations = _renumbered(ground_truth.get("annotations", []), number)
    gt = COCO({**ground_truth, "images": images, "annotations": annotations})
    for result in results:  # which are copies already
        result["image_id"] = number[result["image_id"]]
    dt = gt.loadRes(results)
    evaluation = COCOeval_faster(gt, dt, iou_type, print_function=lines.append, lvis_style=lvis)
    evaluation.params.maxDets = limits
    if image_ids is not None:
        evaluation.params.imgIds = [number[image_id] for image_id in image_ids]
    if overlaps is not None:
        known = {(number[image_id], category): v for (image_id, category), v in overlaps.items()}
        evaluation.computeIoU = lambda *pair: known.get(pair, [])
    evaluation.run()
    # Without two recalls that COCO's own summary does not have.
    shown = [line for line in lines if "(AP)" in line or ("(AR)" in line and "0.50:0.95" in line)]
    return evaluation.eval["precision"], "\n".join(shown)


def _ids(ground_truth: dict) -> list:
    return [image["id"] for image in ground_truth["images"]]


def _renumbered(entries: list[dict], number: dict) -> list[dict]:
    return [{**entry, "image_id": number[entry["image_id"]]} for entry in entries]


def _pycocotools(ground_truth, results, iou_type, limits, image_ids, overlaps=None):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        gt = COCO()
        gt.dataset = {**ground_truth, "annotations": [dict(a) for a in ground_truth["annotations"]]}
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(results), iou_type)
        evaluation.params.maxDets = limits
        if image_ids is not None:
            evaluation.params.imgIds = list(image_ids)
        if overlaps is not None:
            evaluation.computeIoU = lambda *pair: overlaps.get(pair, [])
        evaluation.evaluate()
        evaluation.accumulate()
        if limits == [1, 10, 100]:  # the only limits its summary knows
            evaluation.summarize()
    lines = [line for line in output.getvalue().splitlines() if "@[" in line]
    return evaluation.eval["precision"], "\n".join(lines)


def _lvis(ground_truth, results, iou_type, limit):
    try:
        lvis = importlib.import_module("lvis")
    except ModuleNotFoundError as error:
        if error.name != "lvis":
            raise
        raise ModuleNotFoundError(
            "AP on LVIS needs faster-coco-eval (pip install faster-coco-eval) or, with "
            "TEST.COCO_EVAL pycocotools, the lvis package (pip install lvis)",
            name="lvis",
        ) from error
    give_legacy_numpy(importlib.import_module("lvis.eval"))
    gt = lvis.LVIS.__new__(lvis.LVIS)
    gt.logger, gt.dataset = logging.getLogger("lvis"), copy.deepcopy(ground_truth)
    gt._create_index()
    evaluation = lvis.LVISEval(gt, lvis.LVISResults(gt, results, max_dets=limit), iou_type)
    evaluation.params.max_dets = limit
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        evaluation.run()
        evaluation.print_results()
    return evaluation.eval["precision"][..., None], output.getvalue().rstrip()


def _statistics(precision: np.ndarray) -> list[float]:
    """AP, AP50, AP75 and AP of small, medium and large objects, at the last limit."""
    everywhere = precision[:, :, :, _AREAS.index("all"), -1]
    thresholds = {0.5: 0, 0.75: 5}  # of 0.5, 0.55, ..., 0.95
    values = [everywhere, *(everywhere[index] for index in thresholds.values())]
    values += [precision[:, :, :, _AREAS.index(area), -1] for area in _AREAS[1:]]
    return [_mean(v) for v in values]


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else -1.0


def _by_id(categories: list[dict]) -> list[dict]:
    return sorted(categories, key=lambda category: category["id"])
