"""Swin Transformer (Liu et al., ICCV 2021) as a detectron2 backbone, with the published names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, ShapeSpec

from ..errors import BackboneError
from .stages import StageFeatures
from .swin_blocks import (
    BasicLayer,
    Mlp,
    PatchEmbed,
    PatchMerging,
    SwinTransformerBlock,
    WindowAttention,
    window_partition,
    window_reverse,
)

__all__ = [
    "BasicLayer",
    "D2SwinTransformer",
    "Mlp",
    "PatchEmbed",
    "PatchMerging",
    "SwinTransformer",
    "SwinTransformerBlock",
    "WindowAttention",
    "window_partition",
    "window_reverse",
]


class SwinTransformer(nn.Module):
    """Four stages of window attention at strides 4, 8, 16 and 32, for images of any size."""

    def __init__(
        self,
        *,
        pretrain_img_size: int = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        ape: bool = False,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
        build_stage: Callable[..., nn.Module] = BasicLayer,
    ) -> None:
        """
        Args:
            pretrain_img_size: image side for which the absolute position embedding has tokens.
            depths: blocks per stage; ``num_heads`` has as many entries.
            drop_path_rate: stochastic depth rate of the last block; it grows linearly from 0.
            ape: add an absolute position embedding, resized bicubically to the image.
            out_indices: stages whose normed output is returned. Stages after the last of them are
                not built.
            frozen_stages: -1 trains everything; 0 freezes the patch embedding; 1 the position
                embedding, too; k > 1 also the first k - 1 stages.
            use_checkpoint: trade a second forward of the blocks for memory.
            build_stage: makes each stage; called like ``BasicLayer``.

        Raises:
            BackboneError: if ``depths`` and ``num_heads`` differ in length, heads do not divide
                channels, a stage is unknown, or ``window_size`` is not positive.
        """
        super().__init__()
        if len(depths) != len(num_heads):
            raise BackboneError(
                f"MODEL.SWIN.DEPTHS {list(depths)} and MODEL.SWIN.NUM_HEADS {list(num_heads)} "
                "must name the same number of stages"
            )
        if not out_indices or not all(0 <= i < len(depths) for i in out_indices):
            raise BackboneError(f"out_indices {list(out_indices)} not within {len(depths)} stages")
        if window_size < 1:
            raise BackboneError(f"MODEL.SWIN.WINDOW_SIZE is {window_size}, must be at least 1")
        if not -1 <= frozen_stages <= len(depths) + 1:
            raise BackboneError(
                f"MODEL.SWIN.FROZEN_STAGES is {frozen_stages}, must be from -1 to {len(depths) + 1}"
            )
        self.out_indices = tuple(sorted(out_indices))
        self.frozen_stages = frozen_stages
        self.num_features = [embed_dim * 2**i for i in range(len(depths))]
        if any(dim % heads for dim, heads in zip(self.num_features, num_heads)):
            raise BackboneError(
                f"MODEL.SWIN.NUM_HEADS {list(num_heads)} must divide the channels of the stages, "
                f"{self.num_features} (MODEL.SWIN.EMBED_DIM {embed_dim})"
            )

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim, patch_norm)
        self.absolute_pos_embed = None
        if ape:
            side = pretrain_img_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)

        blocks = sum(depths)
        drop_path = [drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)]
        self.layers = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            first = sum(depths[:i])
            self.layers.append(
                build_stage(
                    self.num_features[i],
                    depths[i],
                    num_heads[i],
                    window_size=window_size,
                    drop_path=drop_path[first : first + depths[i]],
                    downsample=i < self.out_indices[-1],
                    use_checkpoint=use_checkpoint,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                )
            )
        for i in self.out_indices:
            self.add_module(f"norm{i}", nn.LayerNorm(self.num_features[i]))
        self._freeze_stages()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: images, ``[B, in_chans, H, W]``.

        Returns:
            ``res2`` ... ``res5`` of the requested stages, stage i with shape
            ``[B, C * 2^i, H / 2^(i+2), W / 2^(i+2)]`` (rounded up), channels last in memory.
        """
        x = self.embed(x)  # [B, H/4, W/4, C]
        outputs = {}
        for i, layer in enumerate(self.layers):
            stage, x = layer(x)  # [B, H/2^(i+2), W/2^(i+2), C * 2^i]
            if i in self.out_indices:
                outputs[f"res{i + 2}"] = self.normed(i, stage)
        return outputs

    def embed(self, x: Tensor) -> Tensor:
        """Images ``[B, in_chans, H, W]`` to the first stage's tokens ``[B, H/4, W/4, C]``."""
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            x = x + self._resized_position_embedding(x.shape[1], x.shape[2])
        return self.pos_drop(x)

    def normed(self, index: int, stage: Tensor) -> Tensor:
        """A stage's tokens ``[B, h, w, C]`` as the returned feature map ``[B, C, h, w]``."""
        return getattr(self, f"norm{index}")(stage).permute(0, 3, 1, 2)

    def train(self, mode: bool = True) -> SwinTransformer:
        """As always, but frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        return self

    def _resized_position_embedding(self, height: int, width: int) -> Tensor:
        resized = F.interpolate(self.absolute_pos_embed, size=(height, width), mode="bicubic")
        return resized.permute(0, 2, 3, 1)  # [1, H/4, W/4, C]

    def _freeze_stages(self) -> None:
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen.append(self.patch_embed)
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)
        if self.frozen_stages >= 2:
            frozen += [self.pos_drop, *self.layers[: self.frozen_stages - 1]]
        for module in frozen:
            nn.Module.train(module, False)
            module.requires_grad_(False)


@BACKBONE_REGISTRY.register()
class D2SwinTransformer(StageFeatures, SwinTransformer, Backbone):
    """``SwinTransformer`` under ``MODEL.BACKBONE.NAME: D2SwinTransformer``.

    Weights are expected from a checkpoint: only the position tables have Swin's own initialisation.
    """

    section = "MODEL.SWIN"

    @configurable
    def __init__(self, *, out_features: Sequence[str], **swin_options) -> None:
        """
        Args:
            out_features: names out of ``res2`` ... ``res5``.
            swin_options: the keywords of ``SwinTransformer`` except ``out_indices``.

        Raises:
            BackboneError: for an unknown feature name.
        """
        depths = swin_options.get("depths", (2, 2, 6, 2))
        indices = self.stage_indices(out_features, len(depths))
        super().__init__(out_indices=indices, **swin_options)
        self.declare_features(out_features, self.patch_embed.patch_size)

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        swin = cfg.MODEL.SWIN
        return {
            "pretrain_img_size": swin.PRETRAIN_IMG_SIZE,
            "patch_size": swin.PATCH_SIZE,
            "in_chans": input_shape.channels,
            "embed_dim": swin.EMBED_DIM,
            "depths": swin.DEPTHS,
            "num_heads": swin.NUM_HEADS,
            "window_size": swin.WINDOW_SIZE,
            "mlp_ratio": swin.MLP_RATIO,
            "qkv_bias": swin.QKV_BIAS,
            "qk_scale": swin.QK_SCALE,
            "drop_rate": swin.DROP_RATE,
            "attn_drop_rate": swin.ATTN_DROP_RATE,
            "drop_path_rate": swin.DROP_PATH_RATE,
            "ape": swin.APE,
            "patch_norm": swin.PATCH_NORM,
            "use_checkpoint": swin.USE_CHECKPOINT,
            "frozen_stages": swin.FROZEN_STAGES,
            "out_features": swin.OUT_FEATURES,
        }
