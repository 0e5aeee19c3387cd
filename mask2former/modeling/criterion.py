"""Losses of Mask2Former (section 3.3): classification, and masks compared on sampled points."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_with_randomness,
    point_sample,
)
from detectron2.utils import comm

from .mask_losses import dice_loss, dice_loss_jit, sigmoid_ce_loss, sigmoid_ce_loss_jit
from .mask_predictions import at_least_float32, matched_mask_logits
from .matcher import Pairs, matches_layers_together
from .point_sampling import sample_masks
from .targets import PackedTargets

__all__ = [
    "SetCriterion",
    "calculate_uncertainty",
    "dice_loss",
    "dice_loss_jit",
    "sigmoid_ce_loss",
    "sigmoid_ce_loss_jit",
]


def calculate_uncertainty(logits: Tensor) -> Tensor:
    """How unsure a binary prediction is: minus the distance from its boundary (PointRend).

    Args:
        logits: [N, 1, P].

    Returns:
        [N, 1, P], at most 0; the greater, the less certain.
    """
    return -logits.abs()


class MatchedPairs(list):
    """The published matches of one prediction, plus what the losses need of them.

    As a list: per image (query indices, target indices), int64 on the CPU; empty inside a compiled
    graph, which does not know how many they are.

    Attributes:
        image, query, target: int64 [N] on the device, all pairs of the batch; ``target`` counts
            rows of :class:`PackedTargets`.
        masks: logits of the matched queries, [N, h, w].
    """

    image: Tensor
    query: Tensor
    target: Tensor
    masks: Tensor

    @classmethod
    def of_layers(
        cls, layers: list[dict], indices: list[list[Pairs]], targets: PackedTargets
    ) -> list["MatchedPairs"]:
        """For several predictions of one batch, with one copy of all indices to the device."""
        columns = [
            torch.stack([torch.full_like(query, image), query, target + targets.offsets[image]])
            for pairs in indices
            for image, (query, target) in enumerate(pairs)
        ]
        on_device = torch.cat(columns, dim=1).to(targets.labels.device, non_blocking=True)
        counts = torch.tensor([[len(query) for query, _ in pairs] for pairs in indices])
        per_layer = on_device.split(counts.sum(1).tolist(), 1)  # L x [3, N]
        return cls._with_masks(layers, indices, per_layer, counts)

    @classmethod
    def of_segments(
        cls, layers: list[dict], columns: Tensor, targets: PackedTargets
    ) -> list["MatchedPairs"]:
        """The same from the int64 [3, L, M] of ``HungarianMatcher.match_segments``."""
        queries = layers[0]["pred_logits"].shape[1]
        counts = targets.counts.clamp(max=queries).expand(len(layers), -1)
        return cls._with_masks(layers, [[] for _ in layers], columns.unbind(1), counts)

    @classmethod
    def _with_masks(
        cls, layers: list[dict], indices: list, columns: Sequence[Tensor], counts: Tensor
    ) -> list["MatchedPairs"]:
        images, queries = [c[0] for c in columns], [c[1] for c in columns]
        masks = matched_mask_logits(layers, images, queries, counts)
        matched = []
        for pairs, column, mask in zip(indices, columns, masks):
            item = cls(pairs)
            item.image, item.query, item.target = column.unbind()
            item.masks = at_least_float32(mask)
            matched.append(item)
        return matched


class SetCriterion(nn.Module):
    """Matches every prediction with the ground truth and supervises the matched pairs.

    A further loss is a function with the signature of :meth:`loss_labels`, see :meth:`add_loss`.

    Args:
        num_classes: K, without the "no object" class.
        matcher: gives pairs, see :class:`~mask2former.modeling.matcher.HungarianMatcher`.
        weight_dict: loss name -> weight. Not applied here; the meta architecture does.
        eos_coef: weight of the "no object" class in the classification loss.
        losses: names of the losses to compute, of "labels" and "masks".
        num_points: points a mask loss looks at, P.
        oversample_ratio: x P uniform points are candidates for the uncertain ones.
        importance_sample_ratio: share of P taken by uncertainty; the rest is uniform.

    Raises:
        ValueError: an unknown name in ``losses``.
    """

    def __init__(
        self,
        num_classes: int,
        matcher: nn.Module,
        weight_dict: dict[str, float],
        eos_coef: float,
        losses: list[str],
        num_points: int,
        oversample_ratio: float,
        importance_sample_ratio: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.weight_dict = weight_dict
        self.eos_coef = eos_coef
        self.losses = losses
        self.loss_functions: dict[str, Callable[..., dict[str, Tensor]]] = {}  # those added
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = eos_coef
        self.register_buffer("empty_weight", empty_weight)
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio

    def add_loss(self, name: str, function: Callable[..., dict[str, Tensor]]) -> None:
        """Computes one loss more, after those there are.

        Args:
            name: for ``losses``.
            function: called as :meth:`loss_labels`, for the last prediction, then for each
                auxiliary one. If it has a method ``prepare``, that is called first, with the list
                of these predictions (dicts that it may add entries to).
        """
        self.loss_functions[name] = function
        self.losses = [*self.losses, name]

    def forward(self, outputs: dict, targets: list[dict]) -> dict[str, Tensor]:
        """
        Args:
            outputs: pred_logits [B, Q, K + 1], pred_masks [B, Q, h, w] and optionally aux_outputs,
                a list of such dicts.
            targets: per image ``labels`` int64 [n] in [0, K) and ``masks`` [n, H, W].

        Returns:
            loss_ce, loss_mask, loss_dice of the last prediction, and the same names with suffix
            ``_0``, ``_1``, ... for the auxiliary ones. Unweighted scalars.

        Raises:
            NonFiniteCostError: a prediction is NaN or infinite.
        """
        layers = [outputs, *outputs.get("aux_outputs", ())]
        targets = PackedTargets.of(targets)
        for name in self.losses:
            prepare = getattr(self.loss_functions.get(name), "prepare", None)
            if prepare is not None:
                prepare(layers)
        return self.losses_of(layers, targets, self._average_num_masks(targets))

    def losses_of(
        self, layers: list[dict], targets: PackedTargets, num_masks: float | Tensor
    ) -> dict[str, Tensor]:
        """Matches and computes the losses; what :meth:`forward` returns.

        Args:
            layers: the last prediction, then the auxiliary ones.
            targets: ground truth.
            num_masks: as for :meth:`loss_masks`.
        """
        losses = {}
        for i, (layer, pairs) in enumerate(zip(layers, self._match(layers, targets))):
            suffix = "" if i == 0 else f"_{i - 1}"
            for name in self.losses:
                values = self.get_loss(name, layer, targets, pairs, num_masks)
                losses.update({f"{key}{suffix}": value for key, value in values.items()})
        return losses

    def get_loss(
        self,
        loss: str,
        outputs: dict,
        targets: list[dict],
        indices: list[Pairs],
        num_masks: float | Tensor,
    ) -> dict[str, Tensor]:
        """One of the losses by name; the other arguments are those of :meth:`loss_labels`.

        Raises:
            ValueError: there is no such loss.
        """
        # Looked up at every call, so that subclasses and spies may replace them.
        known = {"labels": self.loss_labels, "masks": self.loss_masks, **self.loss_functions}
        if loss not in known:
            raise ValueError(f"unknown loss {loss!r}; known: {', '.join(known)}")
        return known[loss](outputs, targets, indices, num_masks)

    def loss_labels(
        self,
        outputs: dict,
        targets: list[dict],
        indices: list[Pairs],
        num_masks: float | Tensor,
    ) -> dict[str, Tensor]:
        """Cross entropy over K + 1 classes; what is not matched is "no object".

        Args:
            outputs: one prediction.
            targets: as for :meth:`forward`.
            indices: its matches, as the matcher gives them.
            num_masks: not used by this loss, whose mean is weighted by class.
        """
        targets, matched = self._prepare(outputs, targets, indices)
        logits = at_least_float32(outputs["pred_logits"])  # [B, Q, K + 1]
        classes = torch.full(
            logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device
        )
        classes[matched.image, matched.query] = targets.labels[matched.target]
        weight = self.empty_weight.to(logits.dtype)
        return {"loss_ce": F.cross_entropy(logits.transpose(1, 2), classes, weight)}

    def loss_masks(
        self,
        outputs: dict,
        targets: list[dict],
        indices: list[Pairs],
        num_masks: float | Tensor,
    ) -> dict[str, Tensor]:
        """Cross entropy and dice of matched masks, on points where the prediction is uncertain.

        Args: as for :meth:`loss_labels`; the sums over masks are divided by ``num_masks``.
        """
        targets, matched = self._prepare(outputs, targets, indices)
        masks = matched.masks[:, None]  # [N, 1, h, w]
        with torch.no_grad():
            points = self.uncertain_points(masks)  # [N, P, 2]
            truth = sample_masks(targets.masks, targets.size, points, rows=matched.target)  # [N, P]
        logits = point_sample(masks, points, align_corners=False).squeeze(1)  # [N, P]
        return {
            "loss_mask": sigmoid_ce_loss(logits, truth, num_masks),
            "loss_dice": dice_loss(logits, truth, num_masks),
        }

    def uncertain_points(self, masks: Tensor) -> Tensor:
        """Points [N, P, 2] as (x, y) in [0, 1] for mask logits [N, 1, h, w]."""
        return get_uncertain_point_coords_with_randomness(
            masks,
            calculate_uncertainty,
            self.num_points,
            self.oversample_ratio,
            self.importance_sample_ratio,
        )

    def _match(self, layers: list[dict], targets: PackedTargets) -> list[MatchedPairs]:
        if torch.compiler.is_compiling() and hasattr(self.matcher, "match_segments"):
            if not hasattr(targets, "room"):
                targets.complete(layers[0]["pred_logits"].shape[1])
            columns = self.matcher.match_segments(layers, targets)
            return MatchedPairs.of_segments(layers, columns, targets)
        if matches_layers_together(self.matcher):
            indices = self.matcher.match_layers(layers, targets)  # L x B pairs
        else:
            # The published interface: one prediction at a time.
            indices = [self.matcher(layer, targets) for layer in layers]
        return MatchedPairs.of_layers(layers, indices, targets)

    @staticmethod
    def _prepare(
        outputs: dict, targets: list[dict], indices: list[Pairs]
    ) -> tuple[PackedTargets, MatchedPairs]:
        targets = PackedTargets.of(targets)
        if not isinstance(indices, MatchedPairs):
            (indices,) = MatchedPairs.of_layers([outputs], [indices], targets)
        return targets, indices

    @staticmethod
    def _average_num_masks(targets: PackedTargets) -> float | Tensor:
        """Ground-truth masks a process, averaged over processes, at least 1."""
        count = len(targets.labels)
        world_size = comm.get_world_size()
        if world_size == 1:
            return float(max(count, 1))
        total = torch.full((), float(count), device=targets.labels.device)
        torch.distributed.all_reduce(total)
        return (total / world_size).clamp(min=1)

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, losses={self.losses}, eos_coef={self.eos_coef}, "
            f"num_points={self.num_points}, oversample_ratio={self.oversample_ratio}, "
            f"importance_sample_ratio={self.importance_sample_ratio}, "
            f"weight_dict={self.weight_dict}"
        )
