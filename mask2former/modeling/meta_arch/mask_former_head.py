"""The head of MaskFormer and Mask2Former: a pixel decoder, then a transformer decoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from ..pixel_decoder.fpn import PixelDecoderOutput
from ..transformer_decoder.maskformer_transformer_decoder import build_transformer_decoder
from .head import PixelDecoderHead


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(PixelDecoderHead):
    """From backbone features to the class and mask of every query (Mask2Former, section 3.1)."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        pixel_decoder: nn.Module,
        loss_weight: float = 1.0,
        ignore_value: int = -1,
        transformer_predictor: nn.Module,
        transformer_in_feature: str,
    ) -> None:
        """
        Args:
            input_shape: channels and stride of the features used.
            num_classes: classes without "no object".
            pixel_decoder: has ``forward_features(features)``; see ``pixel_decoder.fpn``.
            loss_weight: carried for readers of the config; the criterion has weights of its own.
            ignore_value: label of pixels without ground truth.
            transformer_predictor: transformer decoder, called with (features, mask features, mask).
            transformer_in_feature: what it attends to: ``multi_scale_pixel_decoder``,
                ``transformer_encoder``, ``pixel_embedding``, or the name of a backbone feature.
        """
        super().__init__(
            input_shape,
            num_classes=num_classes,
            pixel_decoder=pixel_decoder,
            loss_weight=loss_weight,
            ignore_value=ignore_value,
        )
        self.common_stride = 4
        self.predictor = transformer_predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        in_channels = transformer_in_channels(cfg, input_shape)
        return {
            **super().from_config(cfg, input_shape),
            "transformer_predictor": build_transformer_decoder(
                cfg, in_channels, mask_classification=True
            ),
            "transformer_in_feature": cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE,
        }

    def forward(self, features: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, Any]:
        """
        Args:
            features: backbone maps ``[B, C_i, H / s_i, W / s_i]``.
            mask: handed on to the transformer decoder.

        Returns:
            ``pred_logits [B, Q, K + 1]``, ``pred_masks [B, Q, H / 4, W / 4]`` and ``aux_outputs``,
            as the transformer decoder gives them.
        """
        return self.layers(features, mask)

    def layers(self, features: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, Any]:
        """What ``forward`` does and returns: pixel decoder, then transformer decoder."""
        outputs = self.pixel_decoder.forward_features(features)
        memory = transformer_memory(self.transformer_in_feature, features, outputs)
        return self.predictor(memory, outputs[0], mask)


def transformer_in_channels(cfg, input_shape: dict[str, ShapeSpec]) -> int:
    """Channels of what ``MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE`` names.

    Raises:
        KeyError: for a name that is neither a decoder output nor a backbone feature.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    head = cfg.MODEL.SEM_SEG_HEAD
    decoder_outputs = {
        "transformer_encoder": head.CONVS_DIM,
        "multi_scale_pixel_decoder": head.CONVS_DIM,
        "pixel_embedding": head.MASK_DIM,
    }
    if name in decoder_outputs:
        return decoder_outputs[name]
    if name not in input_shape:
        raise KeyError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {name!r}; possible here: "
            f"{[*decoder_outputs, *input_shape]}"
        )
    return input_shape[name].channels


def transformer_memory(
    name: str, features: dict[str, Tensor], outputs: PixelDecoderOutput
) -> Tensor | list[Tensor]:
    """What the transformer decoder attends to, by its name in the config.

    Args:
        name: ``MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE``.
        features: backbone maps.
        outputs: what the pixel decoder made of them.

    Raises:
        ValueError: if the pixel decoder has no transformer encoder, but its output is asked for.
    """
    mask_features, encoded, multi_scale = outputs
    decoder_outputs = {
        "multi_scale_pixel_decoder": multi_scale,  # list of [B, C, h, w], coarse to fine
        "transformer_encoder": encoded,  # [B, C, H/32, W/32]
        "pixel_embedding": mask_features,  # [B, C, H/4, W/4]
    }
    if name not in decoder_outputs:
        return features[name]
    if decoder_outputs[name] is None:
        raise ValueError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {name!r}, but the pixel decoder has no "
            "transformer encoder; see MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME"
        )
    return decoder_outputs[name]
