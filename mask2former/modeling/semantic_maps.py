"""SeMask's semantic branch: class maps of the stages, summed and compared with the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .mask_predictions import at_least_float32
from .matcher import Pairs


class SemanticPrediction(dict):
    """The published output dict of the semantic branch; ``pred`` is computed on first access.

    Evaluation does not look at it, and it is large: one channel a class at the size of the images.

    Keys:
        pred: class logits [B, K, H, W], made (and then kept) when first asked for.
        aux: class logits of the stages by name, [B, K, h, w] each.

    Args:
        class_maps: ``aux``, of which the finest has stride ``stride``.
        stride: pixels of the image a pixel of the finest map.
    """

    def __init__(self, class_maps: Mapping[str, Tensor], stride: int = 4) -> None:
        super().__init__(aux=dict(class_maps))
        self.stride = stride

    def __missing__(self, key: str) -> Tensor:
        if key != "pred":
            raise KeyError(key)
        self["pred"] = pred = sum_of_class_maps(self["aux"].values(), self.stride)
        return pred

    def __contains__(self, key: object) -> bool:
        return key == "pred" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self["pred"] if key == "pred" else super().get(key, default)


def sum_of_class_maps(class_maps: Iterable[Tensor], stride: int) -> Tensor:
    """Maps [B, K, h, w] of several sizes, summed from coarse to fine, then at the images' size.

    Each sum is upsampled to the next finer map, as in an FPN; all upsampling is corner-aligned.

    Returns:
        [B, K, stride * h, stride * w] of the finest map.
    """
    total, *finer = sorted(map(at_least_float32, class_maps), key=lambda m: m.shape[-1])
    for fine in finer:
        total = fine + _corner_aligned(total, size=fine.shape[-2:])
    return _corner_aligned(total, scale_factor=stride)


def _corner_aligned(x: Tensor, **size) -> Tensor:
    return F.interpolate(x, mode="bilinear", align_corners=True, **size)


class SemanticMapLoss:
    """``loss_cate``: cross entropy of the semantic branch, averaged over pixels with a label.

    An entry of :attr:`~.criterion.SetCriterion.loss_functions`. The branch hangs on the backbone,
    so only the last prediction, which carries ``semantic``, has a loss; those before it have 0, as
    published.

    Args:
        ignore_label: of pixels without ground truth.
    """

    def __init__(self, ignore_label: int = 255) -> None:
        self.ignore_label = ignore_label

    def __call__(
        self,
        outputs: dict,
        targets: list[dict],
        indices: list[Pairs],
        num_masks: float | Tensor,
    ) -> dict[str, Tensor]:
        """
        Args:
            outputs: one prediction; the last also has ``semantic``, a :class:`SemanticPrediction`.
            targets: per image ``sem_seg`` int64 [H, W], padded like the batch.
            indices, num_masks: not used by this loss.
        """
        if "semantic" not in outputs:
            return {"loss_cate": outputs["pred_logits"].new_zeros(())}
        truth = torch.stack([target["sem_seg"] for target in targets])  # [B, H, W]
        loss = F.cross_entropy(
            outputs["semantic"]["pred"], truth, ignore_index=self.ignore_label, reduction="sum"
        )
        labelled = (truth != self.ignore_label).sum()
        # Published: a mean, which is NaN where no pixel of the batch has a label.
        return {"loss_cate": loss / labelled.clamp(min=1)}


def semantic_target(
    record: dict, size: tuple[int, int], ignore_label: int, device: torch.device
) -> Tensor:
    """The label map of an image, padded with the ignore label on the right and bottom.

    It is ``sem_seg``, where the mapper gives one. Else it is painted from ``instances``: a pixel
    has the class of the smallest segment that covers it (segments of panoptic ground truth do not
    overlap; an object in front of another usually is the smaller one), and no label where there is
    none. So with instance ground truth the background is ignored: it has no class.

    Args:
        record: with ``sem_seg`` int64 [h, w], or ``instances`` with ``gt_classes`` [n] and
            ``gt_masks`` [n, h, w].
        size: (H, W) of the padded batch.

    Returns:
        int64 [H, W].
    """
    if record.get("sem_seg") is not None:
        labels = record["sem_seg"].to(device, non_blocking=True).long()
    else:
        labels = painted(record["instances"], ignore_label, device)
    padding = (0, size[1] - labels.shape[1], 0, size[0] - labels.shape[0])
    return F.pad(labels, padding, value=ignore_label)


def painted(instances, ignore_label: int, device: torch.device) -> Tensor:
    """Label map int64 [h, w] of ground-truth instances; see :func:`semantic_target`."""
    masks = getattr(instances.gt_masks, "tensor", instances.gt_masks)
    if not len(masks):
        size = tuple(masks.shape[-2:])
        return torch.full(size, ignore_label, dtype=torch.int64, device=device)
    masks = masks.to(device, non_blocking=True).bool()  # [n, h, w]
    order = masks.flatten(1).sum(1).argsort(stable=True)  # small ones first
    masks, classes = masks[order], instances.gt_classes.to(device, non_blocking=True)[order]
    covered, topmost = masks.byte().max(dim=0)  # the first of those that cover a pixel
    return torch.where(covered.bool(), classes[topmost], ignore_label)
