"""Predictions of a mask classification decoder, with masks that are made where they are used.

A mask is the inner product of a query's mask embedding with the per-pixel embedding (Mask2Former,
section 3.1), so it need not be written down before somebody looks at it: evaluation looks at the
last prediction only, and training at a few points of all queries and at the whole of matched ones.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.projects.point_rend.point_features import point_sample

from .image_products import products_by_image
from .point_sampling import sample_features


class MaskPredictions(dict):
    """The published output dict of a decoder, whose ``pred_masks`` are computed on first access.

    Keys:
        pred_logits: class logits [B, Q, K + 1]; absent in per-pixel models.
        pred_masks: mask logits [B, Q, H/4, W/4], made (and then kept) when first asked for.
        aux_outputs: list of such dicts for the earlier predictions; absent in those themselves.

    Args:
        mask_embed: [B, Q, C].
        mask_features: per-pixel embedding [B, C, H/4, W/4], shared by all predictions.
        **entries: the other keys.
    """

    def __init__(self, *, mask_embed: Tensor, mask_features: Tensor, **entries: Any) -> None:
        super().__init__(entries)
        self.mask_embed = mask_embed
        self.mask_features = mask_features

    def __missing__(self, key: str) -> Tensor:
        if key != "pred_masks":
            raise KeyError(key)
        self[key] = masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed, self.mask_features)
        return masks

    def __contains__(self, key: object) -> bool:
        return key == "pred_masks" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self["pred_masks"] if key == "pred_masks" else super().get(key, default)


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def mask_logits_at(predictions: Sequence[dict], image: int, points: Tensor) -> Tensor:
    """Mask logits of all queries of one image at points, for several predictions.

    Interpolating the product of embeddings and features equals multiplying by interpolated
    features, so no mask is made for :class:`MaskPredictions`.

    Args:
        predictions: L output dicts, e.g. the last and the auxiliary ones.
        image: index into the batch.
        points: [L, P, 2] as (x, y) in [0, 1]; each prediction has its own.

    Returns:
        [L, Q, P].
    """
    features = _shared_features(predictions)
    if features is None:
        masks = [at_least_float32(p["pred_masks"][image : image + 1]) for p in predictions]
        return torch.cat(
            [
                point_sample(m, at[None].to(m.dtype), align_corners=False)
                for m, at in zip(masks, points)
            ]
        )
    embed = torch.stack([p.mask_embed[image] for p in predictions])  # [L, Q, C]
    sampled = sample_features(at_least_float32(features[image]), points.flatten(0, 1))
    sampled = sampled.unflatten(0, points.shape[:2])  # [L, P, C]
    return embed @ sampled.mT.to(embed.dtype)


def matched_mask_logits(
    predictions: Sequence[dict],
    image: Sequence[Tensor],
    query: Sequence[Tensor],
    counts: Tensor,
) -> list[Tensor]:
    """Whole masks of the matched queries of several predictions, and of no others.

    Args:
        predictions: L output dicts.
        image: for each prediction int64 [N_l]: the images of its matches, ascending.
        query: for each prediction int64 [N_l]: their queries.
        counts: int64 [L, B] on the CPU: how many belong to each prediction and image.

    Returns:
        L times mask logits [N_l, h, w], in the order given.
    """
    rows = list(zip(predictions, image, query))
    features = _shared_features(predictions)
    if features is None:
        return [p["pred_masks"][i, q] for p, i, q in rows]
    # One product an image for all predictions: the large features are read once, and so is their
    # gradient written.
    embed = torch.cat([p.mask_embed[i, q] for p, i, q in rows])  # [N, C]
    masks = products_by_image(embed, features.flatten(2), counts)
    return list(masks.unflatten(1, features.shape[2:]).split([q.shape[0] for q in query]))


def _shared_features(predictions: Sequence[dict]) -> Tensor | None:
    """The per-pixel embedding of all predictions, or None where masks were given as such."""
    if not all(isinstance(p, MaskPredictions) for p in predictions):
        return None
    features = predictions[0].mask_features
    return features if all(p.mask_features is features for p in predictions) else None
