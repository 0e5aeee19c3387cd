"""Plain transformers of timm with the adapter: AugReg, DeiT, DINOv2, DINOv3, EVA, ..."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from ...errors import BackboneError
from ..timm_weights import check_name, create_model
from .adapter import PATCH, ViTAdapter
from .beit_adapter import adapter_options

logger = logging.getLogger(__name__)

_KEY = "MODEL.VIT_ADAPTER"


class TimmViTAdapter(ViTAdapter):
    """A plain transformer of timm, as ``encoder``, inside the adapter.

    Class and register tokens pass through the blocks beside the patches; the adapter exchanges with
    the patches only. Patch embeddings of another size than 16 pixels (DINOv2 has 14) are resampled
    to 16 when pretrained weights are read (FlexiViT, Beyer et al., CVPR 2023), position embeddings
    keep their grid and are interpolated to the image's.
    """

    def __init__(
        self,
        encoder: str,
        *,
        pretrained: bool | str | None = None,
        pretrained_file: str = "",
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
        in_chans: int = 3,
        **adapter,
    ) -> None:
        """
        Args:
            encoder: name of the model in timm, perhaps with a tag of its weights.
            pretrained, pretrained_file: see
                :func:`~mask2former.modeling.backbone.timm_weights.create_model`.
            drop_path_rate: of the last block and of the extractors.
            options: further keyword arguments of ``timm.create_model``.
            adapter: the remaining keywords of ``ViTAdapter.add_adapter``.

        Raises:
            BackboneError: timm has no such model, it is no plain transformer, or it has no weights.
        """
        super().__init__()
        options = {"num_classes": 0, "drop_path_rate": drop_path_rate, **(options or {})}
        options["in_chans"] = in_chans
        self.encoder = _plain_transformer(encoder, pretrained, pretrained_file, options)
        self.add_adapter(
            self.encoder.embed_dim,
            len(self.encoder.blocks),
            drop_path_rate=drop_path_rate,
            in_chans=in_chans,
            **adapter,
        )

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        encoder = self.encoder
        x = encoder._pos_embed(encoder.patch_embed(images))
        rope = None
        if isinstance(x, tuple):  # models with rotary embeddings return these, too
            x, rope = x
        x = encoder.norm_pre(x)
        depth = len(encoder.blocks)
        # Mixed rotary embeddings are learned for each block.
        ropes = list(rope) if getattr(encoder, "rope_mixed", False) else [rope] * depth
        others = encoder.num_prefix_tokens
        return x[:, others:], x[:, :others], ropes

    def encode(
        self, x: Tensor, others: Tensor, blocks: range, context: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        tokens = torch.cat([others, x], dim=1)
        for i in blocks:
            if context[i] is None:
                tokens = self.recompute(self.encoder.blocks[i], tokens)
            else:
                tokens = self.recompute(self.encoder.blocks[i], tokens, context[i])
        return tokens[:, others.shape[1] :], tokens[:, : others.shape[1]]


@BACKBONE_REGISTRY.register()
class D2ViTAdapter(TimmViTAdapter):
    """``TimmViTAdapter`` under ``MODEL.BACKBONE.NAME: D2ViTAdapter``; keys ``MODEL.VIT_ADAPTER``.

    With MODEL.WEIGHTS no pretrained weights are read: those are the whole model's.
    """

    @configurable
    def __init__(self, encoder: str, **options) -> None:
        super().__init__(encoder, **options)

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        keys = cfg.MODEL.VIT_ADAPTER
        trained = bool(cfg.MODEL.WEIGHTS)
        return {
            **adapter_options(cfg, input_shape),
            "encoder": keys.ENCODER,
            "pretrained": None if trained else keys.PRETRAINED,
            "pretrained_file": "" if trained else keys.PRETRAINED_FILE,
            "options": {key.lower(): value for key, value in keys.OPTIONS.items()},
        }


def _plain_transformer(name: str, pretrained, file: str, options: dict[str, Any]) -> nn.Module:
    """The model with patches of 16 pixels, for images of any size, without head and last norm."""
    check_name(name, _KEY)
    # Without memory or random numbers: only its sizes are wanted.
    with torch.device("meta"):
        probe = create_model(name, pretrained=None, file="", key=_KEY, options=options)
    needed = ("patch_embed", "blocks", "_pos_embed", "norm_pre", "num_prefix_tokens", "embed_dim")
    absent = [part for part in needed if not hasattr(probe, part)]
    if absent or not hasattr(probe, "dynamic_img_size"):
        raise BackboneError(
            f"{_KEY}.ENCODER {name} is no plain transformer (it lacks "
            f"{', '.join(absent) or 'dynamic_img_size'}). Models with feature maps of several "
            "strides go with MODEL.BACKBONE.NAME build_timm_backbone; BEiT with D2BEiTAdapter."
        )
    patch = probe.patch_embed.patch_size
    rows, columns = probe.patch_embed.grid_size
    options = {**options, "dynamic_img_size": True}
    if tuple(patch) != (PATCH, PATCH):
        # The same grid of larger patches: the position embedding stays as it is.
        options |= {"patch_size": PATCH, "img_size": (rows * PATCH, columns * PATCH)}
        logger.info("%s: patches of %s are resampled to %d pixels", name, tuple(patch), PATCH)
    model = create_model(name, pretrained=pretrained, file=file, key=_KEY, options=options)
    model.reset_classifier(0, "")
    # Neither is used, and distributed training wants a gradient for every parameter.
    for part in ("norm", "fc_norm", "attn_pool"):
        if getattr(model, part, None) is not None:
            setattr(model, part, nn.Identity())
    return model
