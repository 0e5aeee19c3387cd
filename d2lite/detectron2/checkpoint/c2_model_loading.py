"""Matching the parameter names of a converted checkpoint with those of a model."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from tabulate import tabulate

from detectron2._missing import missing_getattr

__all__ = [
    "align_and_update_state_dicts",
    "convert_basic_c2_names",
    "convert_c2_detectron_names",
]

# Caffe2's names of ResNet layers, after "_" became ".": (pattern, replacement), in this order.
_C2_RULES: tuple[tuple[str, str], ...] = (
    (r"\.b$", ".bias"),
    (r"\.w$", ".weight"),
    (r"[bg]n\.s$", "norm.weight"),
    (r"[bg]n\.bias$", "norm.bias"),
    (r"bn\.gamma$", "norm.weight"),
    (r"bn\.beta$", "norm.bias"),
    (r"bn\.rm$", "norm.running_mean"),
    (r"bn\.running\.mean$", "norm.running_mean"),
    (r"bn\.riv$", "norm.running_var"),
    (r"bn\.running\.var$", "norm.running_var"),
    (r"^res\.conv1\.norm\.", "conv1.norm."),
    (r"^conv1\.", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
)


def convert_basic_c2_names(original_keys: list[str]) -> list[str]:
    """Caffe2's names of a ResNet's weights as detectron2's.

    ``res2_0_branch2a_bn_s`` becomes ``res2.0.conv1.norm.weight``.
    """
    converted = []
    for key in original_keys:
        key = {"pred_b": "linear_b", "pred_w": "linear_w"}.get(key, key)
        key = key.replace("_", ".")
        for pattern, replacement in _C2_RULES:
            key = re.sub(pattern, replacement, key)
        converted.append(key)
    return converted


def convert_c2_detectron_names(
    weights: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Rename the weights of a Caffe2 file.

    Only the names of backbones are known here; those of detection heads stay what
    :func:`convert_basic_c2_names` makes of them.

    Returns:
        the renamed weights, and for every new name the old one.
    """
    old_names = sorted(weights)
    new_names = convert_basic_c2_names(old_names)
    if len(set(new_names)) != len(new_names):
        raise ValueError("The Caffe2 checkpoint has two weights for one name")
    renamed = {new: weights[old] for old, new in zip(old_names, new_names)}
    return renamed, dict(zip(new_names, old_names))


def align_and_update_state_dicts(
    model_state_dict: Mapping[str, torch.Tensor],
    ckpt_state_dict: Mapping[str, torch.Tensor],
    c2_conversion: bool = True,
) -> dict[str, Any]:
    """Rename checkpoint entries to the model's names, matched by suffix.

    A model key takes the longest checkpoint key that equals it, or that it ends with after a
    dot: ``backbone.res2.0.conv1.weight`` takes ``res2.0.conv1.weight``. A match of another shape
    is left out, with a warning. Entries that match nothing keep their names.

    Args:
        c2_conversion: convert Caffe2's names first.

    Returns:
        a plain dict (module versions in ``_metadata`` do not survive); the checkpoint itself when
        nothing matches.

    Raises:
        ValueError: one checkpoint key fits two model keys.
    """
    logger = logging.getLogger(__name__)
    if c2_conversion:
        ckpt_state_dict, original_names = convert_c2_detectron_names(ckpt_state_dict)
    else:
        original_names = {name: name for name in ckpt_state_dict}

    result: dict[str, Any] = {}
    taken_by: dict[str, str] = {}  # checkpoint key -> model key
    for model_key in sorted(model_state_dict):
        ckpt_key = _longest_suffix(model_key, ckpt_state_dict)
        if ckpt_key is None:
            continue
        value = ckpt_state_dict[ckpt_key]
        shape = model_state_dict[model_key].shape
        if tuple(shape) != tuple(value.shape):
            logger.warning(
                "Shape of %s in checkpoint is %s, while shape of %s in model is %s.",
                original_names[ckpt_key],
                tuple(value.shape),
                model_key,
                tuple(shape),
            )
            logger.warning(
                "%s will not be loaded. Please double check and see if this is desired.",
                original_names[ckpt_key],
            )
            continue
        if ckpt_key in taken_by:
            logger.error(
                "Ambiguity found for %s in checkpoint! It matches at least two keys in the model "
                "(%s and %s).",
                original_names[ckpt_key],
                taken_by[ckpt_key],
                model_key,
            )
            raise ValueError("Cannot match one checkpoint key to multiple keys in the model.")
        taken_by[ckpt_key] = model_key
        result[model_key] = value

    if not taken_by:
        logger.warning("No weights in checkpoint matched with model.")
        return ckpt_state_dict
    _log_matches(logger, taken_by, original_names, model_state_dict)
    for ckpt_key in ckpt_state_dict:
        if ckpt_key not in taken_by:
            result[ckpt_key] = ckpt_state_dict[ckpt_key]
    return result


def _longest_suffix(model_key: str, ckpt_keys: Mapping[str, Any]) -> str | None:
    """The longest dot-separated suffix of ``model_key`` (itself included) among the keys."""
    start = 0
    while True:
        if model_key[start:] in ckpt_keys:
            return model_key[start:]
        dot = model_key.find(".", start)
        if dot < 0:
            return None
        start = dot + 1


def _log_matches(
    logger: logging.Logger,
    taken_by: Mapping[str, str],
    original_names: Mapping[str, str],
    model_state_dict: Mapping[str, torch.Tensor],
) -> None:
    """A table with a row for every module: its name, its entries in the file, their shapes."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for ckpt_key, model_key in taken_by.items():
        groups[model_key.rpartition(".")[0]].append((model_key, original_names[ckpt_key]))
    prefix = _common_start([f"{module}." for module in groups])
    prefix = prefix[: prefix.rfind(".") + 1]
    rows = []
    for _, pairs in sorted(groups.items()):
        pairs.sort()
        shapes = " ".join(
            str(tuple(model_state_dict[key].shape)).replace(" ", "") for key, _ in pairs
        )
        names = _shorten([key for key, _ in pairs])[len(prefix) :]
        rows.append((names, _shorten([old for _, old in pairs]), shapes))
    table = tabulate(
        rows, headers=["Names in Model", "Names in Checkpoint", "Shapes"], tablefmt="pipe"
    )
    where = f"submodule {prefix[:-1]}" if prefix else "model"
    logger.info("Following weights matched with %s:\n%s", where, table)


def _common_start(names: list[str]) -> str:
    """The characters with which all names begin."""
    first, last = min(names), max(names)
    for index, character in enumerate(first):
        if last[index] != character:
            return first[:index]
    return first


def _shorten(names: list[str]) -> str:
    """``["a.weight", "a.bias"]`` as ``a.{weight,bias}``"""
    if len(names) == 1:
        return names[0]
    common = _common_start(names)
    cut = max(common.rfind("."), common.rfind("_")) + 1
    return f"{names[0][:cut]}{{{','.join(name[cut:] for name in names)}}}"


__getattr__ = missing_getattr(__name__)
