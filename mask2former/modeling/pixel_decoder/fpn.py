"""Pixel decoders of MaskFormer: a feature pyramid, optionally with a transformer encoder on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from mask2former.ops import winograd

from ..errors import BackboneError
from ..transformer_decoder.position_encoding import PositionEmbeddingSine
from ..transformer_decoder.transformer import (
    TransformerEncoder,
    TransformerEncoderLayer,
    init_xavier,
    to_map,
    to_tokens,
    where_to_attend,
)

# Maps that a multi-scale transformer decoder attends to. [Mask2Former, section 3.2.2]
NUM_MULTI_SCALE_FEATURES = 3

#: What ``forward_features`` returns: mask features ``[B, mask_dim, H / 4, W / 4]``, the encoded
#: coarsest map ``[B, conv_dim, H / 32, W / 32]`` (None without an encoder), and three maps
#: ``[B, conv_dim, h, w]`` from coarse to fine.
PixelDecoderOutput = tuple[Tensor, Tensor | None, list[Tensor]]


def build_pixel_decoder(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Builds the pixel decoder named by ``MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME``.

    Raises:
        ValueError: if it has no ``forward_features`` method.
    """
    name = cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME
    decoder = SEM_SEG_HEADS_REGISTRY.get(name)(cfg, input_shape)
    if not callable(getattr(decoder, "forward_features", None)):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME is {name!r}, which is no pixel decoder: "
            "it has no forward_features(features) method"
        )
    return decoder


def selected_features(cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, ShapeSpec]:
    """The backbone features that ``MODEL.SEM_SEG_HEAD.IN_FEATURES`` names.

    Raises:
        BackboneError: if the backbone does not give one of them.
    """
    names = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
    missing = [name for name in names if name not in input_shape]
    if missing:
        raise BackboneError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES asks for {missing}, but the backbone "
            f"{cfg.MODEL.BACKBONE.NAME} gives {list(input_shape)}; see OUT_FEATURES in its own "
            "section (MODEL.RESNETS, MODEL.SWIN, ...; OUT_INDICES in MODEL.TIMM)"
        )
    return {name: shape for name, shape in input_shape.items() if name in names}


def pyramid_options(cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    """The keywords of every pixel decoder, from ``MODEL.SEM_SEG_HEAD``.

    Raises:
        BackboneError: see ``selected_features``.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    return {
        "input_shape": selected_features(cfg, input_shape),
        "conv_dim": head.CONVS_DIM,
        "mask_dim": head.MASK_DIM,
        "norm": head.NORM,
    }


def features_by_stride(input_shape: dict[str, ShapeSpec]) -> dict[str, ShapeSpec]:
    """The same features, finest first."""
    return dict(sorted(input_shape.items(), key=lambda item: item[1].stride))


def lateral_conv(in_channels: int, conv_dim: int, norm: str | Callable | None) -> Conv2d:
    """1 x 1 convolution and norm; the bias is left to the norm, if there is one."""
    conv = Conv2d(
        in_channels, conv_dim, kernel_size=1, bias=not norm, norm=get_norm(norm, conv_dim)
    )
    weight_init.c2_xavier_fill(conv)
    return conv


class OutputConv(Conv2d):
    """``Conv2d``, at inference on large maps by Winograd's method."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not winograd.applies(x, self):
            return super().forward(x)
        x = winograd.convolution(x, self.weight, self.bias)
        for step in (self.norm, self.activation):
            x = x if step is None else step(x)
        return x


def upsampled_plus(y: Tensor, lateral: Tensor, mode: str) -> Tensor:
    """``y`` resized to the size of ``lateral``, plus ``lateral``; both ``[B, C, h, w]``."""
    corners = None if mode == "nearest" else False
    y = F.interpolate(y, size=lateral.shape[-2:], mode=mode, align_corners=corners)
    # In place where types agree: these are the largest maps of the network.
    return y.add_(lateral) if y.dtype == lateral.dtype else y + lateral


def output_conv(in_channels: int, conv_dim: int, norm: str | Callable | None) -> Conv2d:
    """3 x 3 convolution, norm and ReLU."""
    conv = OutputConv(
        in_channels,
        conv_dim,
        kernel_size=3,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, conv_dim),
        activation=torch.relu_,  # nothing before it needs its own output backward
    )
    weight_init.c2_xavier_fill(conv)
    return conv


@SEM_SEG_HEADS_REGISTRY.register()
class BasePixelDecoder(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017), from the coarsest backbone feature downwards."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
    ) -> None:
        """
        Args:
            input_shape: channels and stride of the backbone features used.
            conv_dim: channels of all maps in between.
            mask_dim: channels of the mask features.
            norm: a name that ``detectron2.layers.get_norm`` knows, or "" for none.
        """
        super().__init__()
        input_shape = features_by_stride(input_shape)
        self.in_features = list(input_shape)  # finest first
        self.mask_dim = mask_dim
        self.mask_features_in_dim = conv_dim
        *finer, coarsest = (shape.channels for shape in input_shape.values())
        for i, channels in enumerate(finer, start=1):
            self.add_module(f"adapter_{i}", lateral_conv(channels, conv_dim, norm))
            self.add_module(f"layer_{i}", output_conv(conv_dim, conv_dim, norm))
        self.add_module(f"layer_{len(input_shape)}", output_conv(coarsest, conv_dim, norm))
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=3, padding=1)
        weight_init.c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return pyramid_options(cfg, input_shape)

    def forward_features(self, features: dict[str, Tensor]) -> PixelDecoderOutput:
        """Backbone maps ``[B, C_i, H / s_i, W / s_i]`` to the ``PixelDecoderOutput``."""
        coarsest, encoded = self.encode(features[self.in_features[-1]])
        y = getattr(self, f"layer_{len(self.in_features)}")(coarsest)  # [B, conv_dim, H/32, W/32]
        pyramid = [y]
        for i in range(len(self.in_features) - 1, 0, -1):
            lateral = getattr(self, f"adapter_{i}")(features[self.in_features[i - 1]])
            y = upsampled_plus(y, lateral, "nearest")
            y = getattr(self, f"layer_{i}")(y)  # [B, conv_dim, H / 2^(i+1), W / 2^(i+1)]
            pyramid.append(y)
        return self.mask_features(y), encoded, pyramid[:NUM_MULTI_SCALE_FEATURES]

    def encode(self, coarsest: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the pyramid starts from, and the encoded map to return; here the feature itself."""
        return coarsest, None

    def forward(self, features: dict[str, Tensor], targets: Any = None) -> PixelDecoderOutput:
        """The same as ``forward_features``."""
        return self.forward_features(features)


class TransformerEncoderOnly(nn.Module):
    """DETR's encoder on one feature map."""

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(
            lambda: TransformerEncoderLayer(
                d_model, nhead, dim_feedforward, dropout, activation, normalize_before
            ),
            num_encoder_layers,
            nn.LayerNorm(d_model) if normalize_before else None,
        )
        init_xavier(self)

    def forward(self, src: Tensor, mask: Tensor | None, pos_embed: Tensor) -> Tensor:
        """``src`` and ``pos_embed`` ``[B, C, H, W]``, ``mask`` bool ``[B, H, W]`` as in DETR."""
        encoded = self.encoder(to_tokens(src), to_tokens(pos_embed), where_to_attend(mask))
        return to_map(encoded, *src.shape[-2:])


@SEM_SEG_HEADS_REGISTRY.register()
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """The same pyramid on a coarsest feature that has passed a transformer encoder."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_dropout: float,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        transformer_pre_norm: bool,
        conv_dim: int,
        mask_dim: int,
        norm: str | Callable | None = None,
    ) -> None:
        """
        Args:
            transformer_enc_layers: encoder layers; the other ``transformer_*`` are their options.
            input_shape, conv_dim, mask_dim, norm: as in ``BasePixelDecoder``.
        """
        super().__init__(input_shape, conv_dim=conv_dim, mask_dim=mask_dim, norm=norm)
        in_channels = features_by_stride(input_shape)[self.in_features[-1]].channels
        self.input_proj = Conv2d(in_channels, conv_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.input_proj)
        self.transformer = TransformerEncoderOnly(
            d_model=conv_dim,
            dropout=transformer_dropout,
            nhead=transformer_nheads,
            dim_feedforward=transformer_dim_feedforward,
            num_encoder_layers=transformer_enc_layers,
            normalize_before=transformer_pre_norm,
        )
        self.pe_layer = PositionEmbeddingSine(conv_dim // 2, normalize=True)
        # The coarsest layer sees the encoder's channels. It is registered last, as published: the
        # order of parameters is the order of the optimizer's groups in a checkpoint.
        name = f"layer_{len(self.in_features)}"
        delattr(self, name)
        self.add_module(name, output_conv(conv_dim, conv_dim, norm))

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        mask_former = cfg.MODEL.MASK_FORMER
        return {
            **super().from_config(cfg, input_shape),
            "transformer_dropout": mask_former.DROPOUT,
            "transformer_nheads": mask_former.NHEADS,
            "transformer_dim_feedforward": mask_former.DIM_FEEDFORWARD,
            "transformer_enc_layers": cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS,
            "transformer_pre_norm": mask_former.PRE_NORM,
        }

    def encode(self, coarsest: Tensor) -> tuple[Tensor, Tensor | None]:
        """The encoded map ``[B, conv_dim, H / 32, W / 32]``, twice."""
        positions = self.pe_layer(coarsest).to(self.input_proj.weight.dtype)
        encoded = self.transformer(self.input_proj(coarsest), None, positions)
        return encoded, encoded
