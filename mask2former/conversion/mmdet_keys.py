"""Parameter names of mmdetection's Mask2Former (versions 2 and 3) and of this project.

The networks are the same but for one thing: mmdetection merges Swin's patches with ``nn.Unfold``,
which orders the four pixels and the channels differently (its ``swin_converter`` does this
permutation to the original weights; :func:`merging_to_ours` undoes it).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .key_map import KeyMap, Renamed, Rule
from .torchvision_resnet import from_detectron2, to_detectron2

_B = "backbone."
_H = "panoptic_head."
_P = "sem_seg_head.pixel_decoder."
_Q = "sem_seg_head.predictor."
# Position of the pixels (row, column) in a merged patch: here (0,0) (1,0) (0,1) (1,1), in
# nn.Unfold's row-major order (0,0) (0,1) (1,0) (1,1). The permutation is its own inverse.
_PIXELS = [0, 2, 1, 3]


def merging_to_ours(value: Tensor) -> Tensor:
    """A patch merging's norm ``[4C]`` or reduction ``[2C, 4C]``: channel-major to pixel-major."""
    split = value.unflatten(-1, (-1, 4))[..., _PIXELS]  # [..., C, 4]
    return split.transpose(-1, -2).flatten(-2).contiguous()


def merging_to_mmdet(value: Tensor) -> Tensor:
    """The inverse of :func:`merging_to_ours`."""
    split = value.unflatten(-1, (4, -1))[..., _PIXELS, :]  # [..., 4, C]
    return split.transpose(-1, -2).flatten(-2).contiguous()


_OURS_BLOCK = f"{_B}layers.{{i}}.blocks.{{j}}."
_BLOCK = f"{_B}stages.{{i}}.blocks.{{j}}."
_SWIN = [
    Rule(f"{_B}patch_embed.proj.{{p}}", f"{_B}patch_embed.projection.{{p}}"),
    Rule(f"{_B}patch_embed.norm.{{p}}", f"{_B}patch_embed.norm.{{p}}"),
    Rule(
        f"{_OURS_BLOCK}attn.relative_position_bias_table",
        f"{_BLOCK}attn.w_msa.relative_position_bias_table",
    ),
    *[
        Rule(f"{_OURS_BLOCK}{ours}.{{p}}", f"{_BLOCK}{theirs}.{{p}}")
        for ours, theirs in (
            ("norm1", "norm1"),
            ("attn.qkv", "attn.w_msa.qkv"),
            ("attn.proj", "attn.w_msa.proj"),
            ("norm2", "norm2"),
            ("mlp.fc1", "ffn.layers.0.0"),
            ("mlp.fc2", "ffn.layers.1"),
        )
    ],
    *[
        Rule(
            f"{_B}layers.{{i}}.downsample.{name}",
            f"{_B}stages.{{i}}.downsample.{name}",
            merging_to_ours,
            merging_to_mmdet,
        )
        for name in ("reduction.weight", "norm.{p}")
    ],
    Rule(f"{_B}norm{{i}}.{{p}}", f"{_B}norm{{i}}.{{p}}"),
]


def _pixel_decoder(attention: str, ffn: str) -> list[Rule]:
    ours = f"{_P}transformer.encoder.layers.{{i}}."
    theirs = f"{_H}pixel_decoder.encoder.layers.{{i}}."
    return [
        Rule(f"{_P}input_proj.{{i}}.0.{{p}}", f"{_H}pixel_decoder.input_convs.{{i}}.conv.{{p}}"),
        Rule(f"{_P}input_proj.{{i}}.1.{{p}}", f"{_H}pixel_decoder.input_convs.{{i}}.gn.{{p}}"),
        Rule(f"{_P}transformer.level_embed", f"{_H}pixel_decoder.level_encoding.weight"),
        Rule(f"{ours}self_attn.{{rest}}", f"{theirs}{attention}.{{rest}}"),
        Rule(f"{ours}norm1.{{p}}", f"{theirs}norms.0.{{p}}"),
        Rule(f"{ours}linear1.{{p}}", f"{theirs}{ffn}.layers.0.0.{{p}}"),
        Rule(f"{ours}linear2.{{p}}", f"{theirs}{ffn}.layers.1.{{p}}"),
        Rule(f"{ours}norm2.{{p}}", f"{theirs}norms.1.{{p}}"),
        # One level of feature pyramid, as in every Mask2Former.
        Rule(f"{_P}adapter_1.norm.{{p}}", f"{_H}pixel_decoder.lateral_convs.0.gn.{{p}}"),
        Rule(f"{_P}adapter_1.{{p}}", f"{_H}pixel_decoder.lateral_convs.0.conv.{{p}}"),
        Rule(f"{_P}layer_1.norm.{{p}}", f"{_H}pixel_decoder.output_convs.0.gn.{{p}}"),
        Rule(f"{_P}layer_1.{{p}}", f"{_H}pixel_decoder.output_convs.0.conv.{{p}}"),
        Rule(f"{_P}mask_features.{{p}}", f"{_H}pixel_decoder.mask_feature.{{p}}"),
    ]


def _decoder(cross: str, self_: str, ffn: str) -> list[Rule]:
    theirs = f"{_H}transformer_decoder.layers.{{i}}."
    names = {
        "cross_attention_layers.{i}.multihead_attn.{rest}": f"{cross}.attn.{{rest}}",
        "cross_attention_layers.{i}.norm.{p}": "norms.0.{p}",
        "self_attention_layers.{i}.self_attn.{rest}": f"{self_}.attn.{{rest}}",
        "self_attention_layers.{i}.norm.{p}": "norms.1.{p}",
        "ffn_layers.{i}.linear1.{p}": f"{ffn}.layers.0.0.{{p}}",
        "ffn_layers.{i}.linear2.{p}": f"{ffn}.layers.1.{{p}}",
        "ffn_layers.{i}.norm.{p}": "norms.2.{p}",
    }
    return [
        *[Rule(f"{_Q}transformer_{ours}", f"{theirs}{name}") for ours, name in names.items()],
        Rule(f"{_Q}decoder_norm.{{p}}", f"{_H}transformer_decoder.post_norm.{{p}}"),
        Rule(f"{_Q}input_proj.{{i}}.{{p}}", f"{_H}decoder_input_projs.{{i}}.{{p}}"),
        *[
            Rule(f"{_Q}{name}.weight", f"{_H}{name}.weight")
            for name in ("query_embed", "query_feat", "level_embed")
        ],
        Rule(f"{_Q}class_embed.{{p}}", f"{_H}cls_embed.{{p}}"),
        *[  # a Sequential with activations in between
            Rule(f"{_Q}mask_embed.layers.{k}.{{p}}", f"{_H}mask_embed.{2 * k}.{{p}}")
            for k in range(3)
        ],
    ]


# Indices follow from the window size; ema_* repeats the weights under flat names; normalisation and
# the loss's class weights come from the config.
_IGNORED = [
    r"relative_position_index$",
    r"^ema_",
    r"^data_preprocessor\.",
    r"loss_cls\.class_weight$",
    r"^criterion\.empty_weight$",
]
_VERSIONS = {
    2: KeyMap(
        [
            *_SWIN,
            *_pixel_decoder("attentions.0", "ffns.0"),
            *_decoder("attentions.0", "attentions.1", "ffns.0"),
        ],
        _IGNORED,
    ),
    3: KeyMap(
        [*_SWIN, *_pixel_decoder("self_attn", "ffn"), *_decoder("cross_attn", "self_attn", "ffn")],
        _IGNORED,
    ),
}


def mmdet_version(names: Mapping[str, Tensor]) -> int:
    """2 or 3, from the names of the decoder's layers."""
    return 2 if any(".attentions.0." in name for name in names) else 3


def from_mmdet(theirs: Mapping[str, Tensor]) -> Renamed:
    """Renames a state dict of mmdetection. The backbones ResNet, Swin and ViT-Adapter are known.

    ViT-Adapter keeps its names: it has the same ones in its own repository, on mmdetection 2.
    """
    resnet = "backbone.layer1.0.conv1.weight" in theirs
    adapter = any(name.startswith("backbone.spm.") for name in theirs)
    renamed = _VERSIONS[mmdet_version(theirs)].to_ours(theirs)
    if not resnet and not adapter:
        return renamed
    renamed.left_over = [n for n in renamed.left_over if not n.startswith(_B)]
    for name, value in theirs.items():
        if name.startswith(_B):
            ours = _B + to_detectron2(name.removeprefix(_B)) if resnet else name
            renamed.weights[ours] = value
            renamed.sources[ours] = (name,)
    return renamed


def to_mmdet(ours: Mapping[str, Tensor], version: int = 3) -> Renamed:
    """The inverse of :func:`from_mmdet` for ResNet and Swin, by which the maps are tested."""
    renamed = _VERSIONS[version].to_theirs(ours)
    if "backbone.stem.conv1.weight" in ours:
        renamed.left_over = [n for n in renamed.left_over if not n.startswith(_B)]
        for name in ours:
            if name.startswith(_B):
                theirs = _B + from_detectron2(name.removeprefix(_B))
                renamed.weights[theirs] = ours[name]
                renamed.sources[theirs] = (name,)
    return renamed
