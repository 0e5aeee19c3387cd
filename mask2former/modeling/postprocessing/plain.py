"""Post-processing written out plainly, as published: full-size masks, a loop over queries.

What ``MODEL.FAST False`` runs, and what the fast way is compared with.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import BitMasks, Instances

from ..mask_predictions import at_least_float32
from .inference import Settings
from .resize import Frame, Size


@torch.no_grad()
def segment_all_plainly(
    logits: Tensor,
    masks: Tensor,
    frames: list[Frame | None],
    settings: Settings,
    resized: list[Size] | None = None,
) -> list[dict]:
    """Arguments and result of :func:`~.inference.segment`; ``settings.compact`` changes nothing."""
    results = []
    with torch.autocast(masks.device.type, enabled=False):
        logits, masks = at_least_float32(logits), at_least_float32(masks)
        for i, frame in enumerate(frames):
            result = segment_plainly(logits[i], masks[i], frame, settings)
            if resized is not None:
                scores = result["sem_seg"]
                result["sem_seg"] = sem_seg_postprocess(scores, scores.shape[1:], *resized[i])
            if "instances" in result:
                result["instances"] = _as_instances(**result["instances"])
            results.append(result)
    return results


def _as_instances(masks: Tensor, scores: Tensor, classes: Tensor) -> Instances:
    boxes = BitMasks(masks).get_bounding_boxes().to(masks.device)
    size = tuple(masks.shape[1:])
    return Instances(
        size, pred_masks=masks.to(scores), pred_boxes=boxes, scores=scores, pred_classes=classes
    )


def full_size_masks(masks: Tensor, frame: Frame) -> Tensor:
    """[Q, h, w] -> [Q, H, W]: to the padded size, cropped to the image, to the output size."""
    masks = F.interpolate(masks[None], frame.padded, mode="bilinear", align_corners=False)
    masks = masks[..., : frame.valid[0], : frame.valid[1]]
    return F.interpolate(masks, frame.output, mode="bilinear", align_corners=False)[0]


def segment_plainly(logits: Tensor, masks: Tensor, frame: Frame | None, settings: Settings) -> dict:
    """One image of :func:`segment_all_plainly`, its logits [Q, K + 1] and masks [Q, h, w].

    ``instances`` is a dict of ``masks`` (bool), ``scores`` and ``classes``, sorted by score.
    """
    if frame is not None:
        masks = full_size_masks(masks, frame)
    result = {}
    if settings.semantic:
        result["sem_seg"] = _semantic(logits, masks)
    if settings.panoptic:
        result["panoptic_seg"] = _panoptic(logits, masks, settings)
    if settings.instance:
        result["instances"] = _instances(logits, masks, settings)
    return result


def _semantic(logits: Tensor, masks: Tensor) -> Tensor:
    return torch.einsum("qc,qhw->chw", logits.softmax(-1)[:, :-1], masks.sigmoid())


def _panoptic(logits: Tensor, masks: Tensor, settings: Settings) -> tuple[Tensor, list[dict]]:
    scores, labels = logits.softmax(-1).max(-1)
    keep = (labels != logits.shape[1] - 1) & (scores > settings.object_mask_threshold)
    scores, labels, probs = scores[keep], labels[keep], masks.sigmoid()[keep]
    ids = torch.zeros(masks.shape[1:], dtype=torch.int32, device=masks.device)
    segments: list[dict] = []
    if not len(probs):
        return ids, segments
    winner = (scores[:, None, None] * probs).argmax(0)
    stuff: dict[int, int] = {}
    for rank in range(len(probs)):
        category = labels[rank].item()
        is_thing = category in settings.things
        original = (probs[rank] >= 0.5).sum().item()
        won = (winner == rank).sum().item()
        mask = (winner == rank) & (probs[rank] >= 0.5)
        if not (won > 0 and original > 0 and mask.sum().item() > 0):
            continue
        if won / original < settings.overlap_threshold:
            continue
        if not is_thing and category in stuff:
            ids[mask] = stuff[category]
            continue
        segments.append({"id": len(segments) + 1, "isthing": is_thing, "category_id": category})
        ids[mask] = len(segments)
        if not is_thing:
            stuff[category] = len(segments)
    return ids, segments


def _instances(logits: Tensor, masks: Tensor, settings: Settings) -> dict[str, Tensor]:
    probs = logits.softmax(-1)[:, :-1]
    scores, pairs = probs.flatten().topk(min(settings.topk, probs.numel()))
    queries, classes = pairs // probs.shape[1], pairs % probs.shape[1]
    if settings.only_things:
        keep = _are_things(classes, settings.things)
        scores, queries, classes = scores[keep], queries[keep], classes[keep]
    masks = masks[queries]
    binary = (masks > 0).float()
    inside = (masks.sigmoid() * binary).flatten(1).sum(1)
    scores = scores * inside / (binary.flatten(1).sum(1) + 1e-6)
    order = scores.argsort(descending=True)
    return {"masks": binary[order] > 0, "scores": scores[order], "classes": classes[order]}


def _are_things(classes: Tensor, things: Collection[int]) -> Tensor:
    # One look-up an instance, as published.
    return torch.tensor([c.item() in things for c in classes], dtype=torch.bool)
