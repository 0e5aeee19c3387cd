"""Reads off a state dict (with this project's names) which network it belongs to.

Shapes and names decide everything that has parameters; what has none (dropout, loss weights, input
size) comes from elsewhere: the published config of the data set with as many classes, or the
config file of the format that was imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from detectron2.config import CfgNode, get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from mask2former.config import add_maskformer2_config
from mask2former.engine.errors import WeightsError
from mask2former.engine.setup import load_config

Options = dict[str, Any]  # "MODEL.SWIN.EMBED_DIM" -> value

_B = "backbone."
_P = "sem_seg_head.pixel_decoder."
_Q = "sem_seg_head.predictor."
_POINTS = 4  # sampled per head and level, in every Mask2Former
_ENCODER_WIDTH = 1024  # of the pixel decoder's feed-forward: fixed in the published code
# (blocks per stage, has bottlenecks) -> MODEL.RESNETS.DEPTH
_RESNETS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
# Number of classes -> the published config of a data set that has as many.
_BASES = {
    133: "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml",
    80: "coco/instance-segmentation/maskformer2_R50_bs16_50ep.yaml",
    150: "ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml",
    100: "ade20k/instance-segmentation/maskformer2_R50_bs16_160k.yaml",
    19: "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml",
    8: "cityscapes/instance-segmentation/maskformer2_R50_bs16_90k.yaml",
    65: "mapillary-vistas/semantic-segmentation/maskformer2_R50_bs16_300k.yaml",
}
#: What every model imported here has; the published R50 and Swin configs say the same.
_ALWAYS: Options = {
    "MODEL.META_ARCHITECTURE": "MaskFormer",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.MASK_FORMER.DROPOUT": 0.0,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
}


def default_config() -> CfgNode:
    """All keys of the project with their defaults."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    return cfg


def config_from(options: Options, base: str | Path | None = None) -> CfgNode:
    """A complete config: defaults, then the YAML ``base``, then ``options``.

    Raises:
        ConfigError: ``base`` is missing, or has a key or value that is not possible.
    """
    cfg = default_config() if base is None else load_config(str(base), [], need_data=False)
    cfg.merge_from_list([item for pair in options.items() for item in pair])
    return cfg


def base_config(num_classes: int) -> Path | None:
    """The published config of a data set with that many classes (a guess), if it is at hand."""
    name = _BASES.get(num_classes)
    path = Path(__file__).resolve().parents[2] / "configs" / str(name)
    return path if path.is_file() else None


def write_yaml(options: Options, path: Path, base: str | None, comment: str) -> None:
    """Writes ``options`` as a config file, on top of the file ``base`` (relative to it)."""
    tree: dict[str, Any] = {"_BASE_": base} if base else {"VERSION": 2}
    for key, value in options.items():
        *parents, leaf = key.split(".")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    text = yaml.safe_dump(tree, default_flow_style=None, sort_keys=False)
    path.write_text("".join(f"# {line}\n" for line in comment.splitlines()) + text)


def infer_options(weights: Mapping[str, Tensor]) -> Options:
    """The config keys that follow from names and shapes.

    Args:
        weights: of a Mask2Former with a ResNet or Swin backbone, under this project's names.

    Raises:
        WeightsError: it is another network, or one that this project's config cannot express.
    """
    try:
        return _ALWAYS | _backbone(weights) | _pixel_decoder(weights) | _decoder(weights)
    except KeyError as error:
        raise WeightsError(
            f"these are not the weights of a Mask2Former: {error.args[0]} is missing. Give the "
            "config that they were trained with (--config-file)."
        ) from error


def _backbone(weights: Mapping[str, Tensor]) -> Options:
    if f"{_B}stem.conv1.weight" in weights:
        return _resnet(weights)
    plain_swin = not any(".semantic_layer." in name for name in weights)
    if f"{_B}layers.0.blocks.0.attn.relative_position_bias_table" in weights and plain_swin:
        return _swin(weights)
    names = sorted({".".join(n.split(".")[:2]) for n in weights if n.startswith(_B)})
    raise WeightsError(
        f"the backbone ({', '.join(names[:4]) or 'none'}, ...) is neither a plain ResNet nor a "
        "Swin, whose settings could be read off the weights. Give its config (--config-file)."
    )


def _resnet(weights: Mapping[str, Tensor]) -> Options:
    depths = tuple(_count(weights, f"{_B}res{stage}.") for stage in range(2, 6))
    bottleneck = f"{_B}res2.0.conv3.weight" in weights
    if (depths, bottleneck) not in _RESNETS:
        raise WeightsError(f"no ResNet of detectron2 has {depths} blocks; give --config-file")
    conv2 = weights[f"{_B}res2.0.conv2.weight"]
    last = weights[f"{_B}res2.0.conv{3 if bottleneck else 2}.weight"]
    groups = len(conv2) // conv2.shape[1] if bottleneck else 1
    trainable_norm = f"{_B}stem.conv1.norm.num_batches_tracked" in weights
    return {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.DEPTH": _RESNETS[depths, bottleneck],
        "MODEL.RESNETS.STEM_TYPE": "basic",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": len(weights[f"{_B}stem.conv1.weight"]),
        "MODEL.RESNETS.RES2_OUT_CHANNELS": len(last),
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": len(conv2) // groups if bottleneck else 64,
        "MODEL.RESNETS.NORM": "SyncBN" if trainable_norm else "FrozenBN",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.RES5_MULTI_GRID": [1, 1, 1],
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    }


def _swin(weights: Mapping[str, Tensor]) -> Options:
    stages = _count(weights, f"{_B}layers.")
    block = f"{_B}layers.{{}}.blocks.0."
    tables = [weights[f"{block.format(i)}attn.relative_position_bias_table"] for i in range(stages)]
    patch = weights[f"{_B}patch_embed.proj.weight"]
    options: Options = {
        "MODEL.BACKBONE.NAME": "D2SwinTransformer",
        "MODEL.SWIN.PATCH_SIZE": patch.shape[-1],
        "MODEL.SWIN.EMBED_DIM": len(patch),
        "MODEL.SWIN.DEPTHS": [_count(weights, f"{_B}layers.{i}.blocks.") for i in range(stages)],
        "MODEL.SWIN.NUM_HEADS": [table.shape[1] for table in tables],
        "MODEL.SWIN.WINDOW_SIZE": (math.isqrt(len(tables[0])) + 1) // 2,
        "MODEL.SWIN.MLP_RATIO": len(weights[f"{block.format(0)}mlp.fc1.weight"]) / len(patch),
        "MODEL.SWIN.QKV_BIAS": f"{block.format(0)}attn.qkv.bias" in weights,
        "MODEL.SWIN.PATCH_NORM": f"{_B}patch_embed.norm.weight" in weights,
        "MODEL.SWIN.APE": f"{_B}absolute_pos_embed" in weights,
        "MODEL.SWIN.OUT_FEATURES": [f"res{i + 2}" for i in range(stages)],
    }
    if options["MODEL.SWIN.APE"]:
        side = weights[f"{_B}absolute_pos_embed"].shape[-1]
        options["MODEL.SWIN.PRETRAIN_IMG_SIZE"] = side * patch.shape[-1]
    return options


def _pixel_decoder(weights: Mapping[str, Tensor]) -> Options:
    layers = f"{_P}transformer.encoder.layers."
    num_layers = _count(weights, layers)
    width = len(weights[f"{layers}0.linear1.weight"])
    levels = len(weights[f"{_P}transformer.level_embed"])
    pyramid = sum(f"{_P}adapter_{k}.weight" in weights for k in range(1, 5))
    if width != _ENCODER_WIDTH or levels != 3 or pyramid != 1:
        raise WeightsError(
            f"the pixel decoder has a feed-forward width of {width}, {levels} deformable levels "
            f"and {pyramid} of the pyramid; this project, like the published code, has "
            f"{_ENCODER_WIDTH}, 3 and 1"
        )
    samples = len(weights[f"{layers}0.self_attn.attention_weights.bias"])
    return {
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": len(weights[f"{_P}input_proj.0.0.weight"]),
        "MODEL.SEM_SEG_HEAD.MASK_DIM": len(weights[f"{_P}mask_features.weight"]),
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": num_layers,
        "MODEL.MASK_FORMER.NHEADS": samples // (levels * _POINTS),
    }


def _decoder(weights: Mapping[str, Tensor]) -> Options:
    num_queries, hidden = weights[f"{_Q}query_feat.weight"].shape
    ffn = f"{_Q}transformer_ffn_layers."
    return {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(weights[f"{_Q}class_embed.weight"]) - 1,
        "MODEL.MASK_FORMER.HIDDEN_DIM": hidden,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": num_queries,
        # The prediction from the queries alone counts, too.
        "MODEL.MASK_FORMER.DEC_LAYERS": _count(weights, ffn) + 1,
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": len(weights[f"{ffn}0.linear1.weight"]),
        "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": f"{_Q}input_proj.0.weight" in weights,
    }


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered children ``prefix`` has."""
    found = {n.removeprefix(prefix).split(".")[0] for n in weights if n.startswith(prefix)}
    return len({number for number in found if number.isdigit()})
