"""What heads with a pixel decoder have in common."""

from __future__ import annotations

from typing import Any

from torch import nn

from detectron2.layers import ShapeSpec

from ..checkpoint_keys import CURRENT_VERSION, convert_old_keys, insert_pixel_decoder
from ..pixel_decoder.fpn import build_pixel_decoder, selected_features


class PixelDecoderHead(nn.Module):
    """A pixel decoder, and a ``predictor`` that a subclass adds."""

    _version = CURRENT_VERSION

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        pixel_decoder: nn.Module,
        loss_weight: float,
        ignore_value: int,
    ) -> None:
        """
        Args:
            input_shape: channels and stride of the features used.
            num_classes: classes without "no object".
            pixel_decoder: has ``forward_features(features)``; see ``pixel_decoder.fpn``.
            loss_weight: factor of a loss that the head computes itself.
            ignore_value: label of pixels without ground truth.
        """
        super().__init__()
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.num_classes = num_classes
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        self.pixel_decoder = pixel_decoder

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The keywords above, from ``MODEL.SEM_SEG_HEAD``.

        Raises:
            BackboneError, ValueError: see ``selected_features`` and ``build_pixel_decoder``.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": selected_features(cfg, input_shape),
            "num_classes": head.NUM_CLASSES,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
        }

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        convert_old_keys(state_dict, prefix, local_metadata, insert_pixel_decoder(self))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
