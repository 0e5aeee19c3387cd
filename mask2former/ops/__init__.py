"""Pure functions of tensors, each with a readable PyTorch reference beside its fast paths."""

from mask2former.ops.implementation import (
    set_implementation,
    use_implementation,
    wants_reference,
)
from mask2former.ops.ms_deform_attn_op import ms_deform_attn
from mask2former.ops.neighborhood_attention import neighborhood_attention_2d
from mask2former.ops.neighborhood_attention_reference import neighborhood_attention_reference
from mask2former.ops.recomputing import checkpoint
from mask2former.ops.reference import ms_deform_attn_reference
from mask2former.ops.short_softmax import short_softmax

__all__ = [
    "checkpoint",
    "ms_deform_attn",
    "ms_deform_attn_reference",
    "neighborhood_attention_2d",
    "neighborhood_attention_reference",
    "set_implementation",
    "short_softmax",
    "use_implementation",
    "wants_reference",
]
