"""Bipartite matching of predictions with ground truth (DETR; costs of Mask2Former, section 3.3)."""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from detectron2.projects.point_rend.point_features import point_sample

from .errors import NonFiniteCostError
from .mask_predictions import at_least_float32, mask_logits_at
from .point_sampling import sample_masks
from .targets import PackedTargets

logger = logging.getLogger(__name__)

# Matched pairs of one image: query indices and target indices, int64 on the CPU, equally long.
Pairs = tuple[Tensor, Tensor]


def batch_dice_loss(inputs: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every prediction against every target, smoothed by 1.

    Args:
        inputs: logits [..., Q, P].
        targets: values in [0, 1], [..., G, P].

    Returns:
        [..., Q, G] in [0, 1].
    """
    probs = inputs.sigmoid()
    overlap = 2 * probs @ targets.mT
    total = probs.sum(-1, keepdim=True) + targets.sum(-1)[..., None, :]
    return 1 - (overlap + 1) / (total + 1)


def batch_sigmoid_ce_loss(inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross entropy of every prediction against every target.

    Args:
        inputs: logits [..., Q, P].
        targets: values in [0, 1], [..., G, P].

    Returns:
        [..., Q, G].
    """
    # -t log s(x) - (1 - t) log(1 - s(x)) = softplus(x) - t x: one product instead of two.
    as_background = F.softplus(inputs).sum(-1, keepdim=True)
    return (as_background - inputs @ targets.mT) / inputs.shape[-1]


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
        costs = [
            self._image_costs(layers, i, targets, points[:, i]) for i in range(len(targets))
        ]  # B x [L, Q, n]
        self._warn_of_crowding(max((c.shape[-1] for c in costs), default=0), queries)

        on_host = torch.cat([c.flatten() for c in costs]).cpu().numpy()  # the one copy
        ends = np.cumsum([c.numel() for c in costs])
        matrices = [
            part.reshape(cost.shape) for part, cost in zip(np.split(on_host, ends[:-1]), costs)
        ]
        _check_finite(matrices)
        return [[_assign(matrix[layer]) for matrix in matrices] for layer in range(len(layers))]

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


def layer_name(index: int) -> str:
    """How messages call the ``index``-th prediction in the order final, aux 0, aux 1, ..."""
    return "final" if index == 0 else f"aux {index - 1}"


def _assign(cost: np.ndarray) -> Pairs:
    query, target = linear_sum_assignment(cost)
    return torch.from_numpy(query.astype(np.int64)), torch.from_numpy(target.astype(np.int64))


def _check_finite(matrices: list[np.ndarray]) -> None:
    bad = np.array([~np.isfinite(m).all(axis=(1, 2)) for m in matrices])  # [B, L]
    if bad.any():
        layers = [layer_name(int(i)) for i in np.flatnonzero(bad.any(axis=0))]
        raise NonFiniteCostError(layers, np.flatnonzero(bad.any(axis=1)).tolist())
