"""Intra-Batch Supervision (de Geus & Dubbelman, WACV 2023): no object is found in another image.

The mask embeddings of an image, applied to the mask features of another image of the batch, should
give empty masks where they stand for objects: two objects that look alike are then told apart even
if a training crop never shows both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detectron2.data import MetadataCatalog
from detectron2.projects.point_rend.point_features import point_sample

from .mask_predictions import MaskPredictions, at_least_float32
from .matcher import Pairs
from .targets import PackedTargets

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

# Of the focal loss (Lin et al., ICCV 2017), as published.
ALPHA, GAMMA = 0.25, 2.0


def draw_partners(batch: int) -> list[int]:
    """For each image of a batch (of at least two) another one, uniformly, from NumPy's generator.

    Two images may draw the same partner.
    """
    return [
        int(np.random.choice([other for other in range(batch) if other != image]))
        for image in range(batch)
    ]


def focal_loss_of_empty_masks(logits: Tensor) -> Tensor:
    """Sigmoid focal loss against all-zero targets, [N, P] -> [N, P]."""
    return (1 - ALPHA) * logits.sigmoid() ** GAMMA * F.softplus(logits)


class IntraBatchSupervision:
    """``loss_mask_ibs`` of all predictions but that of the raw queries (auxiliary prediction 0).

    An entry of :attr:`~.criterion.SetCriterion.loss_functions`. The focal loss is averaged over the
    points of a mask, and over the masks of the process.

    Args:
        thing_classes: labels in [0, K) that stand for objects; None: not known, which is an error
            once the loss is computed.
        sample_points: gives points [N, P, 2] for mask logits [N, 1, h, w]; None takes all pixels.
        count_class_zero: whether a thing class with label 0 is one; the published code counts it
            as stuff.
        partners: draws the other image for each image of a batch; by default
            :func:`draw_partners`.
    """

    compiles = False  # how many masks it looks at depends on the matches

    def __init__(
        self,
        thing_classes: Collection[int] | None,
        *,
        sample_points: Callable[[Tensor], Tensor] | None = None,
        count_class_zero: bool = True,
        partners: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        self.thing_classes = None if thing_classes is None else frozenset(thing_classes)
        if self.thing_classes and not count_class_zero:
            self.thing_classes -= {0}
        self.sample_points = sample_points
        self.partners = partners or (lambda batch: draw_partners(batch))
        self._told = False

    def prepare(self, layers: list[dict]) -> None:
        """Draws partners for each prediction, the first one first, and enters them in it.

        Args:
            layers: the last prediction, then the auxiliary ones in order.
        """
        last, *auxiliary = layers
        for layer in (*auxiliary, last):
            # Published: drawn for prediction 0, too, although it has no loss.
            layer["ibs_partners"] = self._draw(len(layer["pred_logits"]))
        if auxiliary:
            del auxiliary[0]["ibs_partners"]

    def __call__(
        self,
        outputs: dict,
        targets: list[dict],
        indices: list[Pairs],
        num_masks: float | Tensor,
    ) -> dict[str, Tensor]:
        """
        Args:
            outputs: one prediction.
            targets: per image ``labels`` int64 [n], and masks.
            indices: its matches.
            num_masks: not used: this loss divides by the number of its own masks.

        Raises:
            TypeError: the transformer decoder does not give mask embeddings and mask features.
            ValueError: it is not known which classes are things.
        """
        if "ibs_partners" not in outputs:
            return {}
        if not isinstance(outputs, MaskPredictions):
            raise TypeError(
                "MODEL.MASK_FORMER.APPLY_IBS needs mask embeddings and mask features, but the "
                f"transformer decoder gives a {type(outputs).__name__} of masks; return "
                "mask2former.modeling.mask_predictions.MaskPredictions from it"
            )
        queries = self._thing_queries(targets, indices)
        masks = self._masks_in_partners(outputs, queries)  # [N, h, w]
        if self.sample_points is None:
            logits = masks.flatten(1)
        else:
            with torch.no_grad():
                points = self.sample_points(masks[:, None])  # [N, P, 2]
            logits = point_sample(masks[:, None], points, align_corners=False).squeeze(1)
        loss = focal_loss_of_empty_masks(logits).mean(1).sum() / max(len(masks), 1)
        # Without masks it is zero, but with a path to the same parameters in every process.
        return {"loss_mask_ibs": loss}

    def _draw(self, batch: int) -> Sequence[int]:
        if batch > 1:
            return [int(partner) for partner in self.partners(batch)]  # arrays and tensors, too
        if not self._told:
            self._told = True
            logger.warning(
                "MODEL.MASK_FORMER.APPLY_IBS has no effect with one image per process: there is no "
                "other image to compare it with. Set SOLVER.IMS_PER_BATCH to at least twice the "
                "number of processes."
            )
        return ()

    def _thing_queries(self, targets: list[dict], indices: list[Pairs]) -> list[Tensor]:
        """Per image the queries that were matched with things, int64 [n] on the CPU."""
        if self.thing_classes is None:
            raise ValueError(
                "MODEL.MASK_FORMER.APPLY_IBS needs to know which classes are things, but the "
                "metadata of DATASETS.TRAIN[0] has no thing_dataset_id_to_contiguous_id: train on "
                "a panoptic or instance data set, or set MODEL.MASK_FORMER.APPLY_IBS False"
            )
        things = []
        for labels, (query, target) in zip(_labels_on_cpu(targets), indices):
            is_thing = [labels[t] in self.thing_classes for t in target.tolist()]
            things.append(query[torch.tensor(is_thing, dtype=torch.bool)])
        return things

    @staticmethod
    def _masks_in_partners(outputs: MaskPredictions, queries: list[Tensor]) -> Tensor:
        """Mask logits [N, h, w] of the queries of each image on the features of its partner."""
        features = outputs.mask_features  # [B, C, h, w]
        partners = outputs["ibs_partners"] or [0] * len(queries)
        if not outputs["ibs_partners"]:
            queries = [query[:0] for query in queries]
        masks = [
            embed[query.to(embed.device, non_blocking=True)] @ features[partner].flatten(1)
            for embed, query, partner in zip(outputs.mask_embed, queries, partners)
        ]
        return at_least_float32(torch.cat(masks)).unflatten(1, features.shape[2:])


def _labels_on_cpu(targets: list[dict]) -> list[list[int]]:
    """Labels per image; copied once a batch, however many predictions ask."""
    targets = PackedTargets.of(targets)
    if not hasattr(targets, "label_lists"):
        labels = targets.labels.tolist()
        ends = [*targets.offsets[1:], len(labels)]
        targets.label_lists = [labels[a:b] for a, b in zip(targets.offsets, ends)]
    return targets.label_lists


def build_intra_batch_supervision(
    cfg: CfgNode, sample_points: Callable[[Tensor], Tensor]
) -> IntraBatchSupervision:
    """The loss of a config (``MODEL.MASK_FORMER.IBS_*``); things are those of DATASETS.TRAIN[0]."""
    mask_former = cfg.MODEL.MASK_FORMER
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]) if cfg.DATASETS.TRAIN else None
    ids = getattr(metadata, "thing_dataset_id_to_contiguous_id", None)
    things = None if ids is None else frozenset(ids.values())
    if things and 0 in things and not mask_former.IBS_COUNT_CLASS_ZERO:
        names = metadata.get("thing_classes") or metadata.get("stuff_classes") or ["0"]
        logger.warning(
            "Class 0 (%s) is a thing, but intra-batch supervision leaves it out, as the published "
            "code does. MODEL.MASK_FORMER.IBS_COUNT_CLASS_ZERO True counts it.",
            names[0],
        )
    return IntraBatchSupervision(
        things,
        sample_points=sample_points if mask_former.IBS_POINT_SAMPLING else None,
        count_class_zero=mask_former.IBS_COUNT_CLASS_ZERO,
    )
