"""Importing a checkpoint of any known format: detection, conversion, config, report, files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detectron2.config import CfgNode
from mask2former.engine.errors import WeightsError

from .detectron2_keys import from_detectron2_zoo
from .huggingface import huggingface_options, rename_from_huggingface
from .infer_config import Options, base_config, config_from, infer_options, write_yaml
from .key_map import Renamed
from .mmdet_keys import from_mmdet, mmdet_version
from .reading import read_weights
from .state import State, complete

FORMATS = ("detectron2", "hf", "mmdet")
_TITLES = {"detectron2": "detectron2", "hf": "Hugging Face", "mmdet": "mmdetection"}


@dataclass
class Imported:
    """A converted checkpoint.

    Attributes:
        source: what it was, for people: "Hugging Face", "mmdetection 3", ...
        cfg: the complete config of the network.
        options: the keys of it that were read off the checkpoint; empty if a config was given.
        base: the config underneath ``options``, if any.
        guessed: whether ``base`` was chosen by the number of classes alone.
        state: the weights and the fate of every key.
    """

    source: str
    cfg: CfgNode
    options: Options
    base: Path | None
    state: State
    guessed: bool = False


def detect_format(weights: Mapping[str, Tensor]) -> str:
    """``detectron2``, ``hf`` or ``mmdet``, from the names.

    Raises:
        WeightsError: none of them.
    """
    for prefix, found in (
        ("model.pixel_level_module.", "hf"),
        ("panoptic_head.", "mmdet"),
        ("sem_seg_head.", "detectron2"),
    ):
        if any(name.startswith(prefix) for name in weights):
            return found
    shown = ", ".join(list(weights)[:3])
    raise WeightsError(
        f"this is no Mask2Former that is known here (first names: {shown}). For an ImageNet "
        "backbone use tools/convert-pretrained-swin-model-to-d2.py or convert-torchvision-to-d2.py"
    )


def import_checkpoint(
    path: str | Path,
    *,
    source: str = "auto",
    config_file: str | Path | None = None,
    base: str | Path | None = None,
) -> Imported:
    """Reads and converts a checkpoint.

    Args:
        path: a file, or a folder of Hugging Face.
        source: one of ``FORMATS``, or "auto".
        config_file: the network's config, if it is known. Without it the config is read off the
            names, the shapes and config.json.
        base: YAML on which the config that is read off is put; by default the published one of the
            data set with as many classes.

    Raises:
        WeightsError: unreadable, of an unknown format, or a network that this project has not.
    """
    try:
        return _import_checkpoint(Path(path), source, config_file, base)
    except WeightsError as error:
        if str(path) in str(error):
            raise
        raise WeightsError(f"{path}: {error}") from error


def _import_checkpoint(
    path: Path, source: str, config_file: str | Path | None, base: str | Path | None
) -> Imported:
    weights = read_weights(path)
    kind = detect_format(weights) if source == "auto" else source
    renamed = _rename(kind, weights, path)
    title = f"mmdetection {mmdet_version(weights)}" if kind == "mmdet" else _TITLES[kind]
    if config_file is not None:
        cfg = config_from({}, config_file)
        return Imported(title, cfg, {}, None, complete(cfg, renamed))
    options = _options(kind, renamed.weights, path)
    guess = base_config(options["MODEL.SEM_SEG_HEAD.NUM_CLASSES"])
    chosen = Path(base) if base else guess
    cfg = config_from(options, chosen)
    state = complete(cfg, renamed)
    return Imported(title, cfg, options, chosen, state, guessed=not base and guess is not None)


def _rename(kind: str, weights: Mapping[str, Tensor], path: Path) -> Renamed:
    rename = {
        "hf": rename_from_huggingface,
        "mmdet": from_mmdet,
        "detectron2": from_detectron2_zoo,
    }[kind]
    renamed = rename(weights)
    if not renamed.weights:
        raise WeightsError(f"{path}: has no names of the format {kind}; try --from auto")
    return renamed


def _options(kind: str, weights: Mapping[str, Tensor], path: Path) -> Options:
    if kind != "hf":
        options = infer_options(weights)
        if kind == "mmdet":  # counters of batches are there even if its norms are frozen
            options.pop("MODEL.RESNETS.NORM", None)
        return options
    folder = path if path.is_dir() else path.parent
    config = _read_json(folder / "config.json")
    model = (config or {}).get("model_type", "mask2former")
    if model != "mask2former":
        raise WeightsError(f"{folder / 'config.json'}: model_type is {model}, not mask2former")
    options = huggingface_options(weights, config)
    processor = _read_json(folder / "preprocessor_config.json") or {}
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1
    for theirs, ours in (("image_mean", "MODEL.PIXEL_MEAN"), ("image_std", "MODEL.PIXEL_STD")):
        if theirs in processor:
            options[ours] = [round(value / scale, 4) for value in processor[theirs]]
    return options


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path}: no JSON ({error})") from error


def write_config(imported: Imported, path: str | Path, weights: str | Path) -> None:
    """Writes the config of an imported checkpoint, ready for ``train_net.py --eval-only``."""
    path = Path(path)
    base = imported.base and os.path.relpath(imported.base, path.resolve().parent)
    comment = f"Read off a checkpoint of {imported.source} by tools/import_weights.py."
    if imported.guessed:
        comment += (
            "\nThe data set is a guess from the number of classes; for another one take its base."
        )
    options = {"MODEL.WEIGHTS": str(weights)} | imported.options
    write_yaml(options, path, base, comment)
