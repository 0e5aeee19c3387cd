"""Bipartite matching of predictions with ground truth (DETR; costs of Mask2Former, section 3.3)."""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.projects.point_rend.point_features import point_sample

from .assignment import Pairs, assign, layer_name, linear_sum_assignment
from .image_products import products_by_image
from .mask_losses import (
    batch_dice_loss,
    batch_dice_loss_jit,
    batch_sigmoid_ce_loss,
    batch_sigmoid_ce_loss_jit,
)
from .mask_predictions import at_least_float32, mask_logits_at
from .point_sampling import sample_masks
from .targets import PackedTargets

__all__ = [
    "HungarianMatcher",
    "Pairs",
    "batch_dice_loss",
    "batch_dice_loss_jit",
    "batch_sigmoid_ce_loss",
    "batch_sigmoid_ce_loss_jit",
    "layer_name",
    "matches_layers_together",
]

logger = logging.getLogger(__name__)

# Predictions whose costs are made at once on a CPU, where that is when training needs most memory
# and fewer lose no time. On a GPU all are: fewer, larger kernels.
LAYERS_AT_ONCE = 2


class HungarianMatcher(nn.Module):
    """One-to-one assignment of queries to ground-truth segments with the least total cost.

    Cost of a pair: ``cost_mask`` x binary cross entropy + ``cost_class`` x (- class probability)
    + ``cost_dice`` x dice, the mask terms on ``num_points`` uniform random points which all masks
    of an image share.

    Args:
        cost_class, cost_mask, cost_dice: weights of the terms, not all zero.
        num_points: P. 0 is refused, since masks are always compared on points.

    Raises:
        ValueError: all weights are zero, or ``num_points`` is not positive.
    """

    def __init__(
        self,
        cost_class: float = 1,
        cost_mask: float = 1,
        cost_dice: float = 1,
        num_points: int = 112 * 112,
    ) -> None:
        super().__init__()
        if not (cost_class or cost_mask or cost_dice):
            raise ValueError(
                "all matching costs are zero: set one of MODEL.MASK_FORMER.CLASS_WEIGHT, "
                "MASK_WEIGHT and DICE_WEIGHT"
            )
        if num_points < 1:
            raise ValueError(
                f"MODEL.MASK_FORMER.TRAIN_NUM_POINTS is {num_points}; it must be positive"
            )
        self.cost_class = cost_class
        self.cost_mask = cost_mask
        self.cost_dice = cost_dice
        self.num_points = num_points
        self._warned_of_crowding = False

    def forward(self, outputs: dict, targets: list[dict]) -> list[Pairs]:
        """Matches one prediction.

        Args:
            outputs: pred_logits [B, Q, K + 1] and pred_masks [B, Q, h, w].
            targets: per image ``labels`` int64 [n] and ``masks`` [n, H, W].

        Returns:
            Per image (query indices, target indices), int64 on the CPU, min(Q, n) of them.
        """
        return self.memory_efficient_forward(outputs, targets)

    def memory_efficient_forward(self, outputs: dict, targets: list[dict]) -> list[Pairs]:
        """The published name of what :meth:`forward` does."""
        return self.match_layers([outputs], targets)[0]

    @torch.no_grad()
    def match_layers(self, layers: list[dict], targets: list[dict]) -> list[list[Pairs]]:
        """Matches several predictions (the last one, then the auxiliary ones) of one batch.

        All costs are made on the device and copied to the host together, once.

        Args:
            layers: L output dicts as in :meth:`forward`.
            targets: as in :meth:`forward`, the same for all of them.

        Returns:
            For each prediction what :meth:`forward` returns.

        Raises:
            NonFiniteCostError: a cost is NaN or infinite.
        """
        targets = PackedTargets.of(targets)
        batch, queries = layers[0]["pred_logits"].shape[:2]
        points = self._draw_points(len(layers), batch, layers[0]["pred_logits"].device)
        some = LAYERS_AT_ONCE if points.device.type == "cpu" else len(layers)
        parts = [slice(start, start + some) for start in range(0, len(layers), some)]
        costs = [
            torch.cat([self._image_costs(layers[p], i, targets, points[p, i]) for p in parts])
            for i in range(len(targets))
        ]  # B x [L, Q, n]
        self._warn_of_crowding(max((c.shape[-1] for c in costs), default=0), queries)

        on_host = torch.cat([c.flatten() for c in costs]).cpu().numpy()  # the one copy
        ends = np.cumsum([c.numel() for c in costs])
        matrices = [
            part.reshape(cost.shape) for part, cost in zip(np.split(on_host, ends[:-1]), costs)
        ]
        return assign(matrices)

    @torch.no_grad()
    def match_segments(self, layers: list[dict], targets: PackedTargets) -> Tensor:
        """:meth:`match_layers` in tensors whose sizes do not depend on how segments are shared out.

        For ``torch.compile``: all segments of the batch go through every step together.

        Args:
            layers: as in :meth:`match_layers`.
            targets: as there, after :meth:`~.targets.PackedTargets.complete`.

        Returns:
            int64 [3, L, M] on the device: image, query and segment of each pair, see
            :func:`~.assignment.linear_sum_assignment`.
        """
        logits = layers[0]["pred_logits"]
        points = self._draw_points(len(layers), logits.shape[0], logits.device)
        costs = self._segment_costs(layers, targets, points)
        return linear_sum_assignment(costs, targets.counts, targets.room.shape[0])

    @torch.no_grad()
    def reference_costs(self, outputs: dict, target: dict, image: int) -> Tensor:
        """The cost matrix [Q, n] of one image, written out plainly; see :meth:`match_layers`."""
        logits, masks = outputs["pred_logits"][image], outputs["pred_masks"][image]
        points = torch.rand(1, self.num_points, 2, device=masks.device).to(masks.dtype)
        truth = target["masks"].to(masks)[:, None]  # [n, 1, H, W]
        truth = point_sample(truth, points.repeat(len(truth), 1, 1), align_corners=False)[:, 0]
        masks = point_sample(masks[:, None], points.repeat(len(masks), 1, 1), align_corners=False)
        with torch.autocast(masks.device.type, enabled=False):
            masks, truth = at_least_float32(masks[:, 0]), at_least_float32(truth)  # [Q|n, P]
            foreground = F.binary_cross_entropy_with_logits(
                masks, torch.ones_like(masks), reduction="none"
            )
            background = F.binary_cross_entropy_with_logits(
                masks, torch.zeros_like(masks), reduction="none"
            )
            cost_mask = (foreground @ truth.T + background @ (1 - truth).T) / self.num_points
            cost_dice = batch_dice_loss(masks, truth)
        cost_class = -logits.softmax(-1)[:, target["labels"]]
        return (
            self.cost_mask * cost_mask + self.cost_class * cost_class + self.cost_dice * cost_dice
        )

    def _draw_points(self, layers: int, batch: int, device: torch.device) -> Tensor:
        """Uniform points [L, B, P, 2], drawn as published: once a prediction and image."""
        if torch.compiler.is_compiling():  # on a CPU these are the same numbers
            return torch.rand(layers, batch, self.num_points, 2, device=device)
        draws = [torch.rand(1, self.num_points, 2, device=device) for _ in range(layers * batch)]
        return torch.cat(draws).unflatten(0, (layers, batch))

    def _image_costs(
        self, layers: list[dict], image: int, targets: PackedTargets, points: Tensor
    ) -> Tensor:
        """Costs [L, Q, n] of one image at its points [L, P, 2]."""
        logits = torch.stack([layer["pred_logits"][image] for layer in layers])  # [L, Q, K + 1]
        masks = mask_logits_at(layers, image, points)  # [L, Q, P]
        with torch.autocast(masks.device.type, enabled=False):
            masks, logits = at_least_float32(masks), at_least_float32(logits)
            at = points.flatten(0, 1).to(masks.dtype)  # [L*P, 2]
            truth = sample_masks(targets.masks_of(image), targets.sizes[image], at)
            truth = truth.unflatten(1, points.shape[:2]).transpose(0, 1)  # [L, n, P]
            return (
                self.cost_mask * batch_sigmoid_ce_loss(masks, truth)
                - self.cost_class * logits.softmax(-1)[..., targets[image]["labels"]]
                + self.cost_dice * batch_dice_loss(masks, truth)
            )

    def _segment_costs(self, layers: list[dict], targets: PackedTargets, points: Tensor) -> Tensor:
        """Costs [L, G, Q] of all segments with the queries of their image; points [L, B, P, 2]."""
        batch, image = points.shape[1], targets.image
        logits = torch.stack([layer["pred_logits"] for layer in layers])  # [L, B, Q, K + 1]
        masks = torch.stack(
            [mask_logits_at(layers, b, points[:, b]) for b in range(batch)], 1
        )  # [L, B, Q, P]
        with torch.autocast(masks.device.type, enabled=False):
            masks, logits = at_least_float32(masks), at_least_float32(logits)
            probs = masks.sigmoid()
            truth = self._segments_at(targets, points.to(masks.dtype))  # [L, G, P]
            # Like batch_sigmoid_ce_loss and batch_dice_loss, whose products are of one image each.
            product = _products(truth, masks, targets.counts)  # [L, G, Q]
            as_background = F.softplus(masks).sum(-1)[:, image]
            overlap = 2 * _products(truth, probs, targets.counts)
            total = probs.sum(-1)[:, image] + truth.sum(-1, keepdim=True)
            class_probs = logits.softmax(-1).mT[:, image, targets.labels]  # [L, G, Q]
            return (
                self.cost_mask * ((as_background - product) / masks.shape[-1])
                - self.cost_class * class_probs
                + self.cost_dice * (1 - (overlap + 1) / (total + 1))
            )

    @staticmethod
    def _segments_at(targets: PackedTargets, points: Tensor) -> Tensor:
        """Ground truth [L, G, P] at the points [L, B, P, 2] of each image."""
        at = points[:, targets.image].transpose(0, 1).flatten(1, 2)  # [G, L*P, 2]
        height, width = targets.extent[targets.image].T[..., None]  # [G, 1] each
        rows = torch.arange(at.shape[0], device=at.device)
        truth = sample_masks(targets.masks, (height, width), at, rows)
        return truth.unflatten(1, (points.shape[0], points.shape[2])).transpose(0, 1)

    def _warn_of_crowding(self, segments: int, queries: int) -> None:
        if segments > queries and not self._warned_of_crowding:
            self._warned_of_crowding = True
            logger.warning(
                "an image has %d ground-truth segments but the model only %d queries: the rest is "
                "not learned from. Consider a larger MODEL.MASK_FORMER.NUM_OBJECT_QUERIES. "
                "(Said once.)",
                segments,
                queries,
            )

    def extra_repr(self) -> str:
        return (
            f"cost_class={self.cost_class}, cost_mask={self.cost_mask}, "
            f"cost_dice={self.cost_dice}, num_points={self.num_points}"
        )


# What they are before anybody replaces them.
_ONE_LAYER = {
    name: getattr(HungarianMatcher, name) for name in ("forward", "memory_efficient_forward")
}


def matches_layers_together(matcher: nn.Module) -> bool:
    """Whether ``match_layers`` of a matcher does what its ``forward`` would, one by one.

    Not if it has none, if a subclass or an assignment replaced ``forward`` but not
    ``match_layers``, or if a hook waits for calls: then ``forward`` is what has to be called.
    """
    kind = type(matcher)
    if not hasattr(kind, "match_layers") or matcher._forward_hooks or matcher._forward_pre_hooks:
        return False
    if kind.match_layers is not HungarianMatcher.match_layers:
        return True
    return not any(
        name in vars(matcher) or getattr(kind, name) is not function
        for name, function in _ONE_LAYER.items()
    )


def _products(segments: Tensor, queries: Tensor, counts: Tensor) -> Tensor:
    """Inner products [L, G, Q] of segments [L, G, P] with their image's queries [L, B, Q, P]."""
    layers, total = segments.shape[:2]
    per_image = counts.repeat(layers)[None]  # images of different predictions are as many images
    product = products_by_image(segments.flatten(0, 1), queries.flatten(0, 1).mT, per_image)
    return product.unflatten(0, (layers, total))
