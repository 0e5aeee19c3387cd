"""The network. Importing this package registers its backbones, heads and decoders."""

from .backbone.dinat import D2DiNAT
from .backbone.semask_swin import D2SeMaskSwinTransformer
from .backbone.swin import D2SwinTransformer
from .backbone.timm_backbone import TimmBackbone, build_timm_backbone
from .backbone.vit_adapter import D2BEiTAdapter, D2ViTAdapter
from .criterion import SetCriterion
from .matcher import HungarianMatcher
from .meta_arch.branch_mask_former_head import BranchMaskFormerHead
from .meta_arch.mask_former_head import MaskFormerHead
from .meta_arch.per_pixel_baseline import PerPixelBaselineHead, PerPixelBaselinePlusHead
from .pixel_decoder.fpn import BasePixelDecoder, TransformerEncoderPixelDecoder
from .pixel_decoder.msdeformattn import MSDeformAttnPixelDecoder
from .transformer_decoder.mask2former_transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
)
from .transformer_decoder.maskformer_transformer_decoder import StandardTransformerDecoder

__all__ = [
    "BasePixelDecoder",
    "BranchMaskFormerHead",
    "D2BEiTAdapter",
    "D2DiNAT",
    "D2SeMaskSwinTransformer",
    "D2SwinTransformer",
    "D2ViTAdapter",
    "HungarianMatcher",
    "MSDeformAttnPixelDecoder",
    "MaskFormerHead",
    "MultiScaleMaskedTransformerDecoder",
    "PerPixelBaselineHead",
    "PerPixelBaselinePlusHead",
    "SetCriterion",
    "StandardTransformerDecoder",
    "TimmBackbone",
    "TransformerEncoderPixelDecoder",
    "build_timm_backbone",
]
