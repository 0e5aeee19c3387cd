"""Import path of the published code."""

from mask2former.modeling.pixel_decoder.ms_deform_attn import MSDeformAttn

__all__ = ["MSDeformAttn"]
