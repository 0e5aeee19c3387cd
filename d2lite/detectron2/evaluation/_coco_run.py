"""Runs pycocotools on results, within any limit of detections per image."""

from collections.abc import Iterable

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .fast_eval_api import COCOeval_opt


def _evaluate_predictions_on_coco(
    coco_gt: COCO,
    coco_results: list[dict],
    iou_type: str,
    kpt_oks_sigmas: Iterable[float] | None = None,
    cocoeval_fn: type[COCOeval] | bool = COCOeval_opt,
    img_ids: list[int] | None = None,
    max_dets_per_image: list[int] | None = None,
    use_fast_impl: bool | None = None,
) -> COCOeval:
    """Runs pycocotools.

    Args:
        coco_results: not empty; dataset category ids.
        cocoeval_fn: the class to use. detectron2 0.6 has the flag ``use_fast_impl`` here, which
            is accepted in both places.
        max_dets_per_image: three limits; default [1, 10, 100].
    """
    if isinstance(cocoeval_fn, bool) or use_fast_impl is not None:
        fast = cocoeval_fn if isinstance(cocoeval_fn, bool) else use_fast_impl
        cocoeval_fn = COCOeval_opt if fast else COCOeval
    if not coco_results:
        raise AssertionError("There are no results to evaluate")
    # loadRes() writes into the entries. Without "bbox" it takes the area from the mask.
    dropped = {"bbox"} if iou_type == "segm" else set()
    entries = [{k: v for k, v in r.items() if k not in dropped} for r in coco_results]
    coco_dt = coco_gt.loadRes(entries)

    limits = max_dets_per_image or [1, 10, 100]
    if len(limits) < 3:
        raise AssertionError(f"max_dets_per_image must have three values, got {limits}")
    coco_eval = (cocoeval_fn if limits[2] == 100 else COCOevalMaxDets)(coco_gt, coco_dt, iou_type)
    if iou_type != "keypoints":
        coco_eval.params.maxDets = limits
    if img_ids is not None:
        coco_eval.params.imgIds = img_ids
    if iou_type == "keypoints" and kpt_oks_sigmas:
        coco_eval.params.kpt_oks_sigmas = np.array(kpt_oks_sigmas)
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval


class COCOevalMaxDets(COCOeval):
    """COCOeval whose summary follows ``params.maxDets[2]``; the original insists on 100."""

    def summarize(self) -> None:
        if not self.eval:
            raise RuntimeError("Please run accumulate() first")
        if self.params.iouType == "keypoints":
            super().summarize()
            return
        rows = [("AP", None, "all"), ("AP", 0.5, "all"), ("AP", 0.75, "all")]
        rows += [("AP", None, area) for area in ("small", "medium", "large")]
        stats = [self._mean("precision", iou, area, -1) for _, iou, area in rows]
        stats += [self._mean("recall", None, "all", i) for i in range(3)]
        stats += [self._mean("recall", None, area, -1) for area in ("small", "medium", "large")]
        self.stats = np.array(stats)

    def _mean(self, what: str, iou: float | None, area: str, limit: int) -> float:
        """Mean of the valid entries; -1 if there is none."""
        values = self.eval[what][..., self.params.areaRngLbl.index(area), limit]
        if iou is not None:
            values = values[np.isclose(self.params.iouThrs, iou)]
        values = values[values > -1]
        return float(values.mean()) if values.size else -1.0
