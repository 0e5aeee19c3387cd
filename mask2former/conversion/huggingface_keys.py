"""Parameter names of Hugging Face's ``Mask2FormerForUniversalSegmentation`` and of this project.

Names are those of weights files, which all versions of transformers read and write. The modules of
transformers 5 have other names for Swin's attention and MLP; :func:`file_name` maps them back.
Both sides split the decoder's self-attention differently (three matrices there, one here), and
Swin's (likewise); nothing else in the values differs.
"""

from __future__ import annotations

import re

from torch import Tensor

from .key_map import KeyMap, Rule
from .torchvision_resnet import to_detectron2

_E = "model.pixel_level_module.encoder."
_D = "model.pixel_level_module.decoder."
_T = "model.transformer_module."
_B = "backbone."
_P = "sem_seg_head.pixel_decoder."
_Q = "sem_seg_head.predictor."


def _tokens_to_map(embedding: Tensor) -> Tensor:
    """Absolute positions ``[1, N, C]`` as ``[1, C, H, W]``."""
    side = round(embedding.shape[1] ** 0.5)
    return embedding.transpose(1, 2).reshape(1, -1, side, side)


def _map_to_tokens(embedding: Tensor) -> Tensor:
    return embedding.flatten(2).transpose(1, 2).contiguous()


_BLOCK = "layers.{i}.blocks.{j}."
_HF_BLOCK = f"{_E}encoder.layers.{{i}}.blocks.{{j}}."
_SWIN = [
    Rule(f"{_B}patch_embed.proj.{{p}}", f"{_E}embeddings.patch_embeddings.projection.{{p}}"),
    Rule(f"{_B}patch_embed.norm.{{p}}", f"{_E}embeddings.norm.{{p}}"),
    Rule(
        f"{_B}absolute_pos_embed",
        f"{_E}embeddings.position_embeddings",
        _tokens_to_map,
        _map_to_tokens,
    ),
    Rule(f"{_B}{_BLOCK}norm1.{{p}}", f"{_HF_BLOCK}layernorm_before.{{p}}"),
    Rule(f"{_B}{_BLOCK}norm2.{{p}}", f"{_HF_BLOCK}layernorm_after.{{p}}"),
    Rule(
        f"{_B}{_BLOCK}attn.relative_position_bias_table",
        f"{_HF_BLOCK}attention.self.relative_position_bias_table",
    ),
    Rule(
        f"{_B}{_BLOCK}attn.qkv.{{p}}",
        tuple(f"{_HF_BLOCK}attention.self.{part}.{{p}}" for part in ("query", "key", "value")),
    ),
    Rule(f"{_B}{_BLOCK}attn.proj.{{p}}", f"{_HF_BLOCK}attention.output.dense.{{p}}"),
    Rule(f"{_B}{_BLOCK}mlp.fc1.{{p}}", f"{_HF_BLOCK}intermediate.dense.{{p}}"),
    Rule(f"{_B}{_BLOCK}mlp.fc2.{{p}}", f"{_HF_BLOCK}output.dense.{{p}}"),
    Rule(f"{_B}layers.{{i}}.downsample.{{rest}}", f"{_E}encoder.layers.{{i}}.downsample.{{rest}}"),
    Rule(f"{_B}norm{{i}}.{{p}}", f"{_E}hidden_states_norms.stage{{i}}.{{p}}", offset=1),
]

_STAGE = f"{_B}res{{i}}.{{j}}."
_HF_STAGE = f"{_E}encoder.stages.{{i}}.layers.{{j}}."
_RESNET = [
    Rule(f"{_B}stem.conv1.norm.{{rest}}", f"{_E}embedder.embedder.normalization.{{rest}}"),
    Rule(f"{_B}stem.conv1.{{p}}", f"{_E}embedder.embedder.convolution.{{p}}"),
    *[
        rule
        for ours, theirs in [
            ("shortcut", "shortcut"),
            *((f"conv{k + 1}", f"layer.{k}") for k in range(3)),
        ]
        for rule in (
            Rule(
                f"{_STAGE}{ours}.norm.{{rest}}",
                f"{_HF_STAGE}{theirs}.normalization.{{rest}}",
                offset=-2,
            ),
            Rule(f"{_STAGE}{ours}.{{p}}", f"{_HF_STAGE}{theirs}.convolution.{{p}}", offset=-2),
        )
    ],
]

_PIXEL_DECODER = [
    Rule(f"{_P}input_proj.{{rest}}", f"{_D}input_projections.{{rest}}"),
    Rule(f"{_P}transformer.level_embed", f"{_D}level_embed"),
    *[
        Rule(f"{_P}transformer.encoder.layers.{{i}}.{ours}", f"{_D}encoder.layers.{{i}}.{theirs}")
        for ours, theirs in (
            ("self_attn.{rest}", "self_attn.{rest}"),
            ("norm1.{p}", "self_attn_layer_norm.{p}"),
            ("linear1.{p}", "fc1.{p}"),
            ("linear2.{p}", "fc2.{p}"),
            ("norm2.{p}", "final_layer_norm.{p}"),
        )
    ],
    Rule(f"{_P}mask_features.{{p}}", f"{_D}mask_projection.{{p}}"),
    *[
        rule
        for name in ("adapter", "layer")
        for rule in (
            Rule(f"{_P}{name}_{{i}}.norm.{{p}}", f"{_D}{name}_{{i}}.1.{{p}}"),
            Rule(f"{_P}{name}_{{i}}.{{p}}", f"{_D}{name}_{{i}}.0.{{p}}"),
        )
    ],
]

_LAYER = f"{_T}decoder.layers.{{i}}."
_SELF = f"{_Q}transformer_self_attention_layers.{{i}}."
_CROSS = f"{_Q}transformer_cross_attention_layers.{{i}}."
_FFN = f"{_Q}transformer_ffn_layers.{{i}}."
_DECODER = [
    Rule(f"{_Q}query_embed.weight", f"{_T}queries_embedder.weight"),
    Rule(f"{_Q}query_feat.weight", f"{_T}queries_features.weight"),
    Rule(f"{_Q}level_embed.weight", f"{_T}level_embed.weight"),
    Rule(f"{_Q}input_proj.{{i}}.{{p}}", f"{_T}input_projections.{{i}}.{{p}}"),
    *[
        Rule(
            f"{_SELF}self_attn.in_proj_{kind}",
            tuple(f"{_LAYER}self_attn.{part}_proj.{kind}" for part in "qkv"),
        )
        for kind in ("weight", "bias")
    ],
    Rule(f"{_SELF}self_attn.out_proj.{{p}}", f"{_LAYER}self_attn.out_proj.{{p}}"),
    Rule(f"{_SELF}norm.{{p}}", f"{_LAYER}self_attn_layer_norm.{{p}}"),
    Rule(f"{_CROSS}multihead_attn.{{rest}}", f"{_LAYER}cross_attn.{{rest}}"),
    Rule(f"{_CROSS}norm.{{p}}", f"{_LAYER}cross_attn_layer_norm.{{p}}"),
    Rule(f"{_FFN}linear1.{{p}}", f"{_LAYER}fc1.{{p}}"),
    Rule(f"{_FFN}linear2.{{p}}", f"{_LAYER}fc2.{{p}}"),
    Rule(f"{_FFN}norm.{{p}}", f"{_LAYER}final_layer_norm.{{p}}"),
    Rule(f"{_Q}decoder_norm.{{p}}", f"{_T}decoder.layernorm.{{p}}"),
    Rule(
        f"{_Q}mask_embed.layers.{{i}}.{{p}}",
        f"{_T}decoder.mask_predictor.mask_embedder.{{i}}.0.{{p}}",
    ),
    Rule(f"{_Q}class_embed.{{p}}", "class_predictor.{p}"),
    Rule("criterion.empty_weight", "criterion.empty_weight"),
]

#: Everything but a backbone of timm, whose names are torchvision's.
HUGGINGFACE = KeyMap(
    [*_SWIN, *_RESNET, *_PIXEL_DECODER, *_DECODER],
    # Follows from the window size; an unused norm of the classifier.
    ignored=[r"relative_position_index$", r"encoder\.(swin\.)?layernorm\.(weight|bias)$"],
)

# transformers 5 in memory -> its files. In this order.
_MODULE_TO_FILE = (
    (r"\.encoder\.swin\.", ".encoder."),
    (r"\.attention\.(?:relative_position_bias\.)(relative_position_\w+)$", r".attention.self.\1"),
    (r"(blocks\.\d+)\.attention\.q_proj\.", r"\1.attention.self.query."),
    (r"(blocks\.\d+)\.attention\.k_proj\.", r"\1.attention.self.key."),
    (r"(blocks\.\d+)\.attention\.v_proj\.", r"\1.attention.self.value."),
    (r"(blocks\.\d+)\.attention\.o_proj\.", r"\1.attention.output.dense."),
    (r"(blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)
TIMM_PREFIX = f"{_E}_backbone."


def file_name(name: str) -> str:
    """A name of ``model.state_dict()`` as a weights file has it; names of files stay."""
    for pattern, replacement in _MODULE_TO_FILE:
        name = re.sub(pattern, replacement, name)
    return name


def timm_to_resnet(name: str) -> str:
    """Our name of a parameter of a timm ResNet inside the Hugging Face model."""
    return _B + to_detectron2(name.removeprefix(TIMM_PREFIX))
