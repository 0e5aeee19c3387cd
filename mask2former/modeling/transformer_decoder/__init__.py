"""Transformer decoders: from pixel-decoder maps to classes and masks of queries."""

from .mask2former_transformer_decoder import MultiScaleMaskedTransformerDecoder
from .maskformer_transformer_decoder import StandardTransformerDecoder

__all__ = ["MultiScaleMaskedTransformerDecoder", "StandardTransformerDecoder"]
