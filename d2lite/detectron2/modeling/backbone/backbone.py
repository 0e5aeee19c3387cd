"""What every backbone promises to the modules above it."""

from abc import ABCMeta, abstractmethod

import torch.nn as nn
from torch import Tensor

from detectron2._missing import missing_getattr
from detectron2.layers import ShapeSpec

__all__ = ["Backbone"]


class Backbone(nn.Module, metaclass=ABCMeta):
    """An image encoder that returns several named feature maps.

    A subclass either sets ``_out_features`` (names, in order), ``_out_feature_channels`` and
    ``_out_feature_strides`` (both name -> int), or overrides :meth:`output_shape`.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Encodes images.

        Args:
            x: ``[B, C, H, W]`` float, normalised, padded to :attr:`size_divisibility`.

        Returns:
            name -> ``[B, C_name, H / stride, W / stride]``.
        """

    @property
    def size_divisibility(self) -> int:
        """Sides of the input must be multiples of this; 0 or 1 means any size."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Extra wishes for ``ImageList.from_tensors``: ``size_divisibility``, ``square_size``."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map that :meth:`forward` returns."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


__getattr__ = missing_getattr(__name__)
