"""Mask2Former's pixel decoder: a multi-scale deformable encoder and a small feature pyramid.

Cheng et al., CVPR 2022, section 4.1, on the encoder of Deformable DETR (Zhu et al., ICLR 2021).
Autocast stays on in here: the op accumulates in float32, positions and sampling locations are
float32, and the norms choose their own precision. The published code runs all of it in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from fvcore.nn import weight_init
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from mask2former.ops import token_layers

from ..transformer_decoder.feed_forward import activation_function, feed_forward
from ..transformer_decoder.position_encoding import PositionEmbeddingSine
from ..transformer_decoder.transformer import to_map, to_tokens
from .fpn import (  # noqa: F401 - build_pixel_decoder is published here, too
    NUM_MULTI_SCALE_FEATURES,
    PixelDecoderOutput,
    build_pixel_decoder,
    features_by_stride,
    lateral_conv,
    output_conv,
    pyramid_options,
    upsampled_plus,
)
from .ms_deform_attn import MSDeformAttn

NORM_GROUPS = 32  # of the group norms after the input projections. [Mask2Former]


class MSDeformAttnTransformerEncoderLayer(nn.Module):
    """Deformable self-attention over all levels and a feed-forward, post-norm."""

    def __init__(
        self,
        d_model: int = 256,
        d_ffn: int = 1024,
        dropout: float = 0.1,
        activation: str = "relu",
        n_levels: int = 4,
        n_heads: int = 8,
        n_points: int = 4,
    ) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(d_model, n_levels, n_heads, n_points)
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.linear1 = nn.Linear(d_model, d_ffn)
        self.activation = activation_function(activation)
        self.dropout2 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(d_ffn, d_model)
        self.dropout3 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(d_model)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        src: Tensor,
        pos: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """
        Args:
            src, pos: ``[B, S, C]``, the tokens of all levels.
            reference_points: float32 ``[B, S, L, 2]``.
            spatial_shapes: ``(height, width)`` of each of the L levels.

        Returns:
            ``[B, S, C]``.
        """
        if not self.training and self._has_kernels(src, pos, reference_points, spatial_shapes):
            return self._forward_in_kernels(src, pos, reference_points, spatial_shapes)
        attended = self.self_attn(src + pos, reference_points, src, spatial_shapes)
        src = self.norm1(src + self.dropout1(attended))
        perceptron = self.linear1, self.activation, self.dropout2, self.linear2
        return self.norm2(src + self.dropout3(feed_forward(src, *perceptron)))

    def _has_kernels(self, src: Tensor, *others: Tensor | Sequence) -> bool:
        attn, dropouts = self.self_attn, (self.dropout1, self.dropout2, self.dropout3)
        if self.activation is not torch.relu_ or type(attn) is not MSDeformAttn:
            return False
        if not all(token_layers.is_untouched(d, nn.Dropout, nn.Identity) for d in dropouts):
            return False
        own = (self.norm1, self.linear1, self.linear2, self.norm2)
        if not (attn.has_kernels(src, *others) and token_layers.applies(src, layers=own)):
            return False
        width = token_layers.width_after(len(attn.value_proj.weight), attn.output_proj, *own)
        return width == src.shape[-1] == len(attn.output_proj.weight)

    def _forward_in_kernels(self, src, pos, reference_points, spatial_shapes) -> Tensor:
        """The same in three calls, tokens staying in the cache; no dropout, no gradients."""
        attn = self.self_attn
        attended = attn.sample_in_kernels(src, pos, reference_points, spatial_shapes)
        layers = (attn.output_proj, self.norm1, self.linear1, self.linear2, self.norm2)
        return token_layers.post_norm_perceptron(src, attended, *layers)


class MSDeformAttnTransformerEncoder(nn.Module):
    """Encoder layers in a row; every token refers to its own place on every level."""

    def __init__(
        self, make_layer: Callable[[], MSDeformAttnTransformerEncoderLayer], num_layers: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_layer() for _ in range(num_layers))

    def forward(
        self, src: Tensor, pos: Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """``src`` and ``pos`` ``[B, S, C]`` to ``[B, S, C]``."""
        reference_points = cell_centres(spatial_shapes, src.device)  # [S, 2]
        reference_points = reference_points[None, :, None].expand(
            len(src), -1, len(spatial_shapes), -1
        )  # [B, S, L, 2]
        for layer in self.layers:
            src = layer(src, pos, reference_points, spatial_shapes)
        return src


class MSDeformAttnTransformerEncoderOnly(nn.Module):
    """The deformable encoder on a list of feature maps."""

    def __init__(
        self,
        d_model: int = 256,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        dim_feedforward: int = 1024,
        dropout: float = 0.1,
        activation: str = "relu",
        num_feature_levels: int = 4,
        enc_n_points: int = 4,
    ) -> None:
        super().__init__()
        self.encoder = MSDeformAttnTransformerEncoder(
            lambda: MSDeformAttnTransformerEncoderLayer(
                d_model,
                dim_feedforward,
                dropout,
                activation,
                num_feature_levels,
                nhead,
                enc_n_points,
            ),
            num_encoder_layers,
        )
        self.level_embed = nn.Parameter(torch.empty(num_feature_levels, d_model))
        nn.init.normal_(self.level_embed)

    def forward(self, srcs: list[Tensor], pos_embeds: list[Tensor]) -> list[Tensor]:
        """
        Args:
            srcs: one map ``[B, C, H_l, W_l]`` per level.
            pos_embeds: their position embeddings, of the same shapes.

        Returns:
            One encoded map ``[B, C, H_l, W_l]`` per level.
        """
        spatial_shapes = [(src.shape[2], src.shape[3]) for src in srcs]
        tokens = torch.cat([to_tokens(src) for src in srcs], 1)  # [B, S, C], S = sum of H_l * W_l
        pos = torch.cat(
            [to_tokens(p).to(e.dtype) + e for p, e in zip(pos_embeds, self.level_embed)], 1
        )
        encoded = self.encoder(tokens, pos, spatial_shapes)  # [B, S, C]
        levels = encoded.split([height * width for height, width in spatial_shapes], 1)
        return [to_map(level, *shape) for level, shape in zip(levels, spatial_shapes)]


@SEM_SEG_HEADS_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """Deformable encoder on strides 8 to 32, then a feature pyramid down to the common stride."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_dropout: float,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
        transformer_in_features: Sequence[str],
        common_stride: int,
    ) -> None:
        """
        Args:
            input_shape: channels and stride of the backbone features used.
            transformer_dropout, transformer_nheads, transformer_dim_feedforward,
                transformer_enc_layers: options of the encoder.
            conv_dim: channels of all maps in between; a multiple of 32, the groups of the norms.
            mask_dim: channels of the mask features.
            norm: norm of the pyramid, a name that ``detectron2.layers.get_norm`` knows or "".
            transformer_in_features: the features that pass through the encoder.
            common_stride: stride of the mask features.

        Raises:
            ValueError: if ``transformer_in_features`` is empty or not among the features,
                ``conv_dim`` is no multiple of 32, or ``common_stride`` is coarser than they are.
        """
        super().__init__()
        if conv_dim % NORM_GROUPS:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM is {conv_dim}; MSDeformAttnPixelDecoder needs a "
                f"multiple of {NORM_GROUPS}, the groups of its norms"
            )
        input_shape = features_by_stride(input_shape)
        encoder_shape = {k: v for k, v in input_shape.items() if k in transformer_in_features}
        if not encoder_shape or len(encoder_shape) < len(set(transformer_in_features)):
            raise ValueError(
                "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES is "
                f"{list(transformer_in_features)}; it must be chosen from "
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES {list(input_shape)}"
            )
        self.in_features = list(input_shape)  # finest first
        self.transformer_in_features = list(encoder_shape)[::-1]  # coarsest first
        self.mask_dim = mask_dim
        self.common_stride = common_stride

        self.input_proj = nn.ModuleList()
        for name in self.transformer_in_features:
            projection = nn.Conv2d(encoder_shape[name].channels, conv_dim, kernel_size=1)
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
            self.input_proj.append(nn.Sequential(projection, nn.GroupNorm(NORM_GROUPS, conv_dim)))
        self.transformer = MSDeformAttnTransformerEncoderOnly(
            d_model=conv_dim,
            dropout=transformer_dropout,
            nhead=transformer_nheads,
            dim_feedforward=transformer_dim_feedforward,
            num_encoder_layers=transformer_enc_layers,
            num_feature_levels=len(encoder_shape),
        )
        self.pe_layer = PositionEmbeddingSine(conv_dim // 2, normalize=True)
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.mask_features)

        # The pyramid goes on from the encoder's finest map, one level per factor of two.
        finest_stride = min(shape.stride for shape in encoder_shape.values())
        if common_stride > finest_stride:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {common_stride}, but the finest of "
                "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES, which masks start from, has stride "
                f"{finest_stride}: set it to {finest_stride} or less"
            )
        pyramid_levels = (finest_stride // common_stride).bit_length() - 1
        self.pyramid_features = self.in_features[:pyramid_levels][::-1]  # coarsest first
        for i, name in enumerate(self.in_features[:pyramid_levels], start=1):
            channels = input_shape[name].channels
            self.add_module(f"adapter_{i}", lateral_conv(channels, conv_dim, norm))
            self.add_module(f"layer_{i}", output_conv(conv_dim, conv_dim, norm))

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            **pyramid_options(cfg, input_shape),
            "transformer_dropout": cfg.MODEL.MASK_FORMER.DROPOUT,
            "transformer_nheads": cfg.MODEL.MASK_FORMER.NHEADS,
            # Published as a constant; MASK_FORMER.DIM_FEEDFORWARD is the decoder's.
            "transformer_dim_feedforward": 1024,
            "transformer_enc_layers": head.TRANSFORMER_ENC_LAYERS,
            "transformer_in_features": head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            "common_stride": head.COMMON_STRIDE,
        }

    def forward_features(self, features: dict[str, Tensor]) -> PixelDecoderOutput:
        """Backbone maps ``[B, C_i, H / s_i, W / s_i]`` to the ``PixelDecoderOutput``."""
        encoded = self._encode(features)  # [B, conv_dim, h, w] at strides 32, 16, 8
        pyramid = encoded + self._descend(encoded[-1], features)  # ... and 4
        multi_scale = pyramid[:NUM_MULTI_SCALE_FEATURES]
        return self.mask_features(pyramid[-1]), encoded[0], multi_scale

    def _encode(self, features: dict[str, Tensor]) -> list[Tensor]:
        srcs = [
            projection(features[name])
            for name, projection in zip(self.transformer_in_features, self.input_proj)
        ]
        return self.transformer(srcs, [self.pe_layer(src) for src in srcs])

    def _descend(self, y: Tensor, features: dict[str, Tensor]) -> list[Tensor]:
        """The maps finer than ``y``, the encoder's finest."""
        maps = []
        for i, name in zip(range(len(self.pyramid_features), 0, -1), self.pyramid_features):
            lateral = getattr(self, f"adapter_{i}")(features[name])
            y = upsampled_plus(y, lateral, "bilinear")
            y = getattr(self, f"layer_{i}")(y)  # [B, conv_dim, H / 4, W / 4]
            maps.append(y)
        return maps

    def forward(self, features: dict[str, Tensor], targets: Any = None) -> PixelDecoderOutput:
        """The same as ``forward_features``."""
        return self.forward_features(features)


def cell_centres(spatial_shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Normalised (x, y) of every cell's centre, level by level, float32 ``[S, 2]``."""
    levels = []
    for height, width in spatial_shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        y, x = torch.meshgrid(y, x, indexing="ij")
        levels.append(torch.stack([x, y], -1).flatten(0, 1))  # [H_l * W_l, 2]
    return torch.cat(levels)
