"""ViT-Adapter: dense prediction with plain vision transformers (Chen et al., ICLR 2023)."""

from .adapter import ViTAdapter
from .beit_adapter import BEiTAdapter, D2BEiTAdapter
from .timm_adapter import D2ViTAdapter, TimmViTAdapter

__all__ = ["BEiTAdapter", "D2BEiTAdapter", "D2ViTAdapter", "TimmViTAdapter", "ViTAdapter"]
