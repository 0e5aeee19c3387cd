"""Mask2Former: masked-attention mask transformer for panoptic, instance and semantic segmentation."""

from .config import add_maskformer2_config

__all__ = ["add_maskformer2_config"]
