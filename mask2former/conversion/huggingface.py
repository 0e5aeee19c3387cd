"""Mask2Former of Hugging Face's transformers, to and from this project.

    hf_config, hf_weights = to_huggingface(model.state_dict(), cfg)
    cfg, weights = from_huggingface(hf_weights, hf_config)

Neither direction needs transformers; :func:`load_in_transformers` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from detectron2.config import CfgNode
from mask2former.engine.errors import WeightsError

from .huggingface_keys import HUGGINGFACE, TIMM_PREFIX, file_name, timm_to_resnet
from .infer_config import Options, config_from, infer_options
from .key_map import Renamed
from .state import complete

# Hugging Face's name -> ours, where the value is the same. What has parameters (queries, layers)
# is read off the weights instead.
_SAME = {
    "pre_norm": "MODEL.MASK_FORMER.PRE_NORM",
    "dropout": "MODEL.MASK_FORMER.DROPOUT",
    "no_object_weight": "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT",
    "class_weight": "MODEL.MASK_FORMER.CLASS_WEIGHT",
    "mask_weight": "MODEL.MASK_FORMER.MASK_WEIGHT",
    "dice_weight": "MODEL.MASK_FORMER.DICE_WEIGHT",
    "train_num_points": "MODEL.MASK_FORMER.TRAIN_NUM_POINTS",
    "oversample_ratio": "MODEL.MASK_FORMER.OVERSAMPLE_RATIO",
    "importance_sample_ratio": "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO",
    "use_auxiliary_loss": "MODEL.MASK_FORMER.DEEP_SUPERVISION",
    "ignore_value": "MODEL.SEM_SEG_HEAD.IGNORE_VALUE",
}
_SAME_SWIN = {
    "drop_path_rate": "MODEL.SWIN.DROP_PATH_RATE",
    "hidden_dropout_prob": "MODEL.SWIN.DROP_RATE",
    "attention_probs_dropout_prob": "MODEL.SWIN.ATTN_DROP_RATE",
    "image_size": "MODEL.SWIN.PRETRAIN_IMG_SIZE",
}
_FLOATS = ("dropout", "weight", "ratio", "rate", "prob")
_ALL_STAGES = [f"stage{i}" for i in range(1, 5)]


def rename_from_huggingface(hf_weights: Mapping[str, Tensor]) -> Renamed:
    """Their weights, under names of files or of modules, as ours."""
    named = {file_name(name): value for name, value in hf_weights.items()}
    renamed = HUGGINGFACE.to_ours(named)
    for name in [n for n in renamed.left_over if n.startswith(TIMM_PREFIX)]:
        ours = timm_to_resnet(name)
        renamed.weights[ours] = named[name]
        renamed.sources[ours] = (name,)
        renamed.left_over.remove(name)
    if not any(n.startswith("sem_seg_head.") for n in renamed.weights):
        raise WeightsError("these are no weights of Mask2FormerForUniversalSegmentation")
    return renamed


def from_huggingface(
    hf_weights: Mapping[str, Tensor], hf_config: Mapping[str, Any] | None = None
) -> tuple[CfgNode, dict[str, Tensor]]:
    """Converts a ``Mask2FormerForUniversalSegmentation``.

    Args:
        hf_weights: ``model.state_dict()`` or the content of its weights file.
        hf_config: ``model.config.to_dict()`` or the content of config.json. Without it, settings
            that leave no trace in the weights (loss weights, dropout) are the published ones.

    Returns:
        a complete config, and the state dict of ``build_model(cfg)``, in its order.

    Raises:
        WeightsError: it has a part that this project does not; some weights are missing.
    """
    renamed = rename_from_huggingface(hf_weights)
    cfg = config_from(huggingface_options(renamed.weights, hf_config))
    state = complete(cfg, renamed)
    state.refuse_incomplete("the Hugging Face model")
    return cfg, state.weights


def huggingface_options(
    weights: Mapping[str, Tensor], hf_config: Mapping[str, Any] | None
) -> Options:
    """Config keys of an imported model: from its weights (under our names) and its config.json."""
    options = infer_options(weights)
    # Every ResNet there has plain batch norms; whether ours are frozen is the data set's choice.
    options.pop("MODEL.RESNETS.NORM", None)
    if hf_config is None:
        return options
    backbone = hf_config.get("backbone_config") or {}
    _check_known(hf_config, backbone)
    pairs = [(hf_config, _SAME)]
    if backbone.get("model_type") == "swin":
        pairs.append((backbone, _SAME_SWIN))
    for source, table in pairs:
        for theirs, ours in table.items():
            if source.get(theirs) is not None:
                value = source[theirs]
                number = any(word in theirs for word in _FLOATS)
                options[ours] = float(value) if number else value
    if backbone.get("model_type") == "resnet":
        options["MODEL.RESNETS.STRIDE_IN_1X1"] = bool(backbone.get("downsample_in_bottleneck"))
    return options


def _check_known(hf_config: Mapping[str, Any], backbone: Mapping[str, Any]) -> None:
    kind = backbone.get("model_type", "swin")
    if kind not in ("swin", "resnet", "timm_backbone"):
        raise WeightsError(f"backbone_config.model_type {kind}: only swin and resnet convert")
    if kind == "timm_backbone" and backbone.get("backbone") not in ("resnet50", "resnet101"):
        raise WeightsError(
            f"backbone_config.backbone {backbone.get('backbone')}: of timm's backbones, resnet50 "
            "and resnet101 are the ones that detectron2 has"
        )
    for source, key, wanted in (
        (hf_config, "activation_function", "relu"),
        (hf_config, "common_stride", 4),
        (backbone, "hidden_act", "relu" if kind == "resnet" else "gelu"),
        (backbone, "downsample_in_first_stage", False),
    ):
        if source.get(key, wanted) != wanted:
            raise WeightsError(f"config.json: {key} {source[key]}: this project has {wanted}")


def to_huggingface(
    state_dict: Mapping[str, Tensor], cfg: CfgNode, labels: list[str] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Converts a Mask2Former with a ResNet or Swin backbone.

    Args:
        state_dict: of ``build_model(cfg)``.
        cfg: its config.
        labels: names of the classes, by contiguous id.

    Returns:
        the content of config.json (``Mask2FormerConfig.from_dict`` takes it), and the weights with
        the names of its weights file.

    Raises:
        WeightsError: the network has a part that the Hugging Face model does not.
    """
    renamed = HUGGINGFACE.to_theirs(state_dict)
    if renamed.left_over:
        raise WeightsError(
            f"{len(renamed.left_over)} weights have no place in the Hugging Face model, e.g. "
            f"{renamed.left_over[0]}. It has the backbones ResNet and Swin, and the multi-scale "
            "masked decoder only."
        )
    weights = renamed.weights | _unused_there(renamed.weights)
    return _huggingface_config(infer_options(state_dict), cfg, labels), weights


def _unused_there(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What transformers would otherwise call missing, and then never reads in evaluation."""
    extra = {}
    for name in weights:  # counters, which detectron2's frozen norms do not have
        if name.endswith("normalization.running_mean"):
            counter = name.replace("running_mean", "num_batches_tracked")
            if counter not in weights:
                extra[counter] = torch.tensor(0)
    last = weights.get("model.pixel_level_module.encoder.hidden_states_norms.stage4.weight")
    if last is not None:  # the classifier's norm, which a backbone has in transformers 5
        norm = "model.pixel_level_module.encoder.swin.layernorm."
        extra |= {f"{norm}weight": torch.ones_like(last), f"{norm}bias": torch.zeros_like(last)}
    return extra


def _huggingface_config(shapes: Options, cfg: CfgNode, labels: list[str] | None) -> dict[str, Any]:
    head, mask_former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    if cfg.INPUT.FORMAT != "RGB":
        raise WeightsError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT}; image processors of Hugging Face give RGB"
        )
    count = shapes["MODEL.SEM_SEG_HEAD.NUM_CLASSES"]
    labels = labels or [f"LABEL_{i}" for i in range(count)]
    if len(labels) != count:
        raise WeightsError(f"{len(labels)} class names were given for {count} classes")
    config: dict[str, Any] = {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        "backbone_config": _swin_config(shapes, cfg) or _resnet_config(shapes, cfg),
        "activation_function": "relu",
        "feature_size": shapes["MODEL.SEM_SEG_HEAD.CONVS_DIM"],
        "mask_feature_size": shapes["MODEL.SEM_SEG_HEAD.MASK_DIM"],
        "hidden_dim": shapes["MODEL.MASK_FORMER.HIDDEN_DIM"],
        "encoder_feedforward_dim": 1024,
        "encoder_layers": shapes["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS"],
        "decoder_layers": shapes["MODEL.MASK_FORMER.DEC_LAYERS"],
        "num_attention_heads": shapes["MODEL.MASK_FORMER.NHEADS"],
        "dim_feedforward": shapes["MODEL.MASK_FORMER.DIM_FEEDFORWARD"],
        "enforce_input_projection": shapes["MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ"],
        "num_queries": shapes["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"],
        "common_stride": head.COMMON_STRIDE,
        "feature_strides": [4, 8, 16, 32],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    sources = {"MODEL.SEM_SEG_HEAD": head, "MODEL.MASK_FORMER": mask_former}
    for theirs, ours in _SAME.items():
        section, _, key = ours.rpartition(".")
        config[theirs] = sources[section][key]
    return config


def _swin_config(shapes: Options, cfg: CfgNode) -> dict[str, Any] | None:
    if shapes["MODEL.BACKBONE.NAME"] != "D2SwinTransformer":
        return None
    swin = cfg.MODEL.SWIN
    if not shapes["MODEL.SWIN.PATCH_NORM"] or swin.QK_SCALE is not None:
        raise WeightsError("MODEL.SWIN.PATCH_NORM False and QK_SCALE do not exist in transformers")
    return {
        "model_type": "swin",
        "image_size": swin.PRETRAIN_IMG_SIZE,
        "patch_size": shapes["MODEL.SWIN.PATCH_SIZE"],
        "num_channels": 3,
        "embed_dim": shapes["MODEL.SWIN.EMBED_DIM"],
        "depths": shapes["MODEL.SWIN.DEPTHS"],
        "num_heads": shapes["MODEL.SWIN.NUM_HEADS"],
        "window_size": shapes["MODEL.SWIN.WINDOW_SIZE"],
        "mlp_ratio": shapes["MODEL.SWIN.MLP_RATIO"],
        "qkv_bias": shapes["MODEL.SWIN.QKV_BIAS"],
        "hidden_dropout_prob": swin.DROP_RATE,
        "attention_probs_dropout_prob": swin.ATTN_DROP_RATE,
        "drop_path_rate": swin.DROP_PATH_RATE,
        "hidden_act": "gelu",
        "use_absolute_embeddings": shapes["MODEL.SWIN.APE"],
        "layer_norm_eps": 1e-5,
        "out_features": _ALL_STAGES,
    }


def _resnet_config(shapes: Options, cfg: CfgNode) -> dict[str, Any]:
    resnet = cfg.MODEL.RESNETS
    depth, width = shapes["MODEL.RESNETS.DEPTH"], shapes["MODEL.RESNETS.RES2_OUT_CHANNELS"]
    bottleneck = depth >= 50
    # Hugging Face's bottleneck is a quarter of the block's width, without groups.
    if bottleneck and (
        shapes["MODEL.RESNETS.NUM_GROUPS"] != 1
        or shapes["MODEL.RESNETS.WIDTH_PER_GROUP"] * 4 != width
    ):
        raise WeightsError("grouped or widened ResNets (ResNeXt) do not exist in transformers")
    blocks = {18: [2, 2, 2, 2], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
    return {
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": shapes["MODEL.RESNETS.STEM_OUT_CHANNELS"],
        "hidden_sizes": [width * 2**i for i in range(4)],
        "depths": blocks.get(depth, [3, 4, 6, 3]),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": resnet.STRIDE_IN_1X1,
        "out_features": _ALL_STAGES,
    }


def load_in_transformers(hf_config: Mapping[str, Any], hf_weights: Mapping[str, Tensor]) -> Any:
    """The Hugging Face model of what :func:`to_huggingface` gave, in evaluation mode.

    Raises:
        WeightsError: transformers found weights missing, left over or of another shape.
    """
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    model, info = Mask2FormerForUniversalSegmentation.from_pretrained(
        None,
        config=Mask2FormerConfig.from_dict(dict(hf_config)),
        state_dict=dict(hf_weights),
        output_loading_info=True,
    )
    wrong = {kind: names for kind, names in info.items() if names}
    if wrong:
        raise WeightsError(f"transformers does not take all of the weights: {wrong}")
    return model.eval()
