"""Boundary AP: COCO's AP with the overlap of outlines in place of that of whole masks.

Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021: two
masks overlap by the smaller of mask IoU and boundary IoU, and everything else is COCO's. The
boundary of a mask is the mask minus its erosion by ``dilation_ratio`` of the image's diagonal.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import pycocotools.mask as mask_util

from .average_precision import AveragePrecision, coco_average_precision
from .errors import EvaluationError
from .parallel import map_images

_KERNEL = np.ones((3, 3), np.uint8)
_LIMITS = (1, 10, 100)


def boundary_width(height: int, width: int, dilation_ratio: float = 0.02) -> int:
    """How wide the boundaries of an image's masks are, in pixels; at least one."""
    return max(1, round(dilation_ratio * float(np.hypot(height, width))))


def mask_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask within ``width`` of its outline; the image's frame is an outline too.

    Args:
        mask: uint8 ``[H, W]`` of 0 and 1.

    Returns:
        uint8 ``[H, W]``.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    boundary = np.zeros_like(mask)
    if not len(rows):
        return boundary
    # Outside of its box a mask is empty, as it is outside of the image: the box is enough.
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    padded = np.pad(mask[box], 1)
    eroded = cv2.erode(padded, _KERNEL, iterations=width)
    boundary[box] = mask[box] - eroded[1:-1, 1:-1]
    return boundary


def boundary_average_precision(
    ground_truth: dict,
    results: list[dict],
    *,
    iou_type: str = "boundary",
    dilation_ratio: float = 0.02,
    engine: str = "fast",
    processes: int | None = None,
    progress: bool = False,
) -> AveragePrecision:
    """AP of instance masks in a result file.

    Args:
        ground_truth: content of a COCO instance file; masks may be polygons or run lengths.
        results: COCO results with ``segmentation``; boxes in them are not looked at, so areas and
            boxes are those of the masks.
        iou_type: "boundary", "segm" or "bbox".
        dilation_ratio: width of boundaries as a share of the diagonal; 0.02 is the paper's.
        engine: TEST.COCO_EVAL, see :mod:`~.average_precision`.
        processes: for the overlaps of boundaries; default: all cores.

    Raises:
        EvaluationError: results and ground truth do not belong together.
    """
    _check_results(ground_truth, results)
    overlaps = None
    if iou_type == "boundary":
        overlaps = boundary_overlaps(
            ground_truth,
            results,
            dilation_ratio=dilation_ratio,
            processes=processes,
            progress=progress,
        )
    if iou_type == "bbox":
        results = [
            {**result, "bbox": mask_util.toBbox(result["segmentation"]).tolist()}
            for result in results
        ]
    kind = "bbox" if iou_type == "bbox" else "segm"
    return coco_average_precision(
        ground_truth, results, kind, engine=engine, limits=_LIMITS, overlaps=overlaps
    )


def boundary_overlaps(
    ground_truth: dict,
    results: list[dict],
    *,
    dilation_ratio: float,
    processes: int | None = None,
    progress: bool = False,
) -> dict[tuple, np.ndarray]:
    """(image id, category id) -> ``[D, G]`` overlaps, as COCO's evaluation wants them.

    Rows are the best detections by falling score, columns the ground truth in the file's order.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    truth: dict = defaultdict(lambda: defaultdict(list))
    found: dict = defaultdict(lambda: defaultdict(list))
    for annotation in ground_truth["annotations"]:
        truth[annotation["image_id"]][annotation["category_id"]].append(annotation)
    for result in results:
        found[result["image_id"]][result["category_id"]].append(result)
    jobs = []
    for image_id in truth.keys() & found.keys():
        pairs = {
            category: (_best(found[image_id][category]), truth[image_id][category])
            for category in truth[image_id].keys() & found[image_id].keys()
        }
        if pairs:
            jobs.append((image_id, sizes[image_id], pairs))
    work = partial(_image_overlaps, dilation_ratio=dilation_ratio)
    title = "Boundary IoU" if progress else ""
    parts = map_images(work, jobs, processes=processes, progress=title)
    return {(image_id, category): overlap for image_id, part in parts for category, overlap in part}


def _image_overlaps(job: tuple, *, dilation_ratio: float) -> tuple:
    image_id, (height, width), pairs = job
    pixels = boundary_width(height, width, dilation_ratio)
    overlaps = []
    for category, (found, truth) in pairs.items():
        masks = [r["segmentation"] for r in found]
        gt_masks = [_run_lengths(a["segmentation"], height, width) for a in truth]
        crowd = [int(a.get("iscrowd", 0)) for a in truth]
        overlap = mask_util.iou(masks, gt_masks, crowd)
        outlines = [_boundary(m, pixels) for m in masks]
        gt_outlines = [_boundary(m, pixels) for m in gt_masks]
        boundary = mask_util.iou(outlines, gt_outlines, crowd)
        # A crowd's outline means nothing: there the masks alone decide.
        single = np.array(crowd) == 0
        overlap[:, single] = np.minimum(overlap, boundary)[:, single]
        overlaps.append((category, overlap))
    return image_id, overlaps


def _best(results: list[dict]) -> list[dict]:
    """As COCO's evaluation orders and limits them: by falling score, ties in the file's order."""
    return sorted(results, key=lambda result: -result["score"])[: _LIMITS[-1]]


def _boundary(rle: dict, width: int) -> dict:
    mask = np.array(mask_util.decode(rle))
    return mask_util.encode(np.asfortranarray(mask_boundary(mask, width)))


def _run_lengths(segmentation: dict | list, height: int, width: int) -> dict:
    """Compressed run lengths of what an annotation file may hold."""
    if isinstance(segmentation, list):  # polygons
        return mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, height, width)
    return segmentation


def _check_results(ground_truth: dict, results: Sequence[dict]) -> None:
    if not results:
        raise EvaluationError("There are no results to evaluate")
    sizes = {image["id"]: [image["height"], image["width"]] for image in ground_truth["images"]}
    for i, result in enumerate(results):
        if not isinstance(result, dict):
            raise EvaluationError(f"Result {i} is a {type(result).__name__}, not an object")
        if not isinstance(result.get("segmentation"), dict):
            raise EvaluationError(
                f"Result {i} (image {result.get('image_id')}) has no run-length encoded "
                "segmentation: boundary AP is for masks"
            )
        size = sizes.get(result["image_id"])
        if size is None:
            raise EvaluationError(
                f"Result {i} is of image {result['image_id']}, which is not in the ground truth"
            )
        if list(result["segmentation"]["size"]) != size:
            raise EvaluationError(
                f"Result {i} (image {result['image_id']}) has a mask of "
                f"{result['segmentation']['size']} pixels, but the image has {size}"
            )
