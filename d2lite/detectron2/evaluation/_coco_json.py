"""Detections as entries of a COCO result file."""

import pycocotools.mask as mask_util
import torch
from torch import Tensor

from detectron2.structures import BoxMode, Instances

# Masks are encoded in groups of about this many bytes: bounded memory at any image size.
ENCODE_BYTES = 1 << 26


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict]:
    """Detections of one image as COCO results (with contiguous category ids).

    Args:
        instances: ``pred_boxes``, ``scores``, ``pred_classes`` and optionally ``pred_masks``
            ``[N, H, W]`` and ``pred_keypoints`` ``[N, K, 3]``, on any device.
    """
    if len(instances) == 0:
        return []
    boxes = BoxMode.convert(
        instances.pred_boxes.tensor.cpu().numpy(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
    ).tolist()
    scores, classes = instances.scores.tolist(), instances.pred_classes.tolist()
    results = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(classes, boxes, scores)
    ]
    if instances.has("pred_masks"):
        for result, rle in zip(results, _encode_masks(instances.pred_masks)):
            result["segmentation"] = rle
    if instances.has("pred_keypoints"):
        keypoints = instances.pred_keypoints.cpu().clone()
        keypoints[:, :, :2] -= 0.5  # COCO counts from pixel centres, we from corners
        for result, points in zip(results, keypoints.flatten(1).tolist()):
            result["keypoints"] = points
    return results


def _encode_masks(masks: Tensor) -> list[dict]:
    """COCO RLEs (with text counts) of ``[N, H, W]`` masks."""
    per_group = max(1, ENCODE_BYTES // max(1, masks[0].numel()))
    encoded = []
    for group in masks.split(per_group):
        # pycocotools wants [H, W, N] in Fortran order, which is [N, W, H] in memory. Transposing
        # on the masks' device and moving bytes keeps the host's part small.
        columns_first = group.to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()
        encoded += mask_util.encode(columns_first.transpose(2, 1, 0))
    for rle in encoded:
        rle["counts"] = rle["counts"].decode("utf-8")  # JSON has no bytes
    return encoded
