"""Writes the folder that ``from_pretrained`` of transformers reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from mask2former.engine.errors import WeightsError
from mask2former.engine.suggestions import nearest

from .huggingface import to_huggingface


def class_names(dataset: str, count: int) -> list[str] | None:
    """Names by contiguous id from a registered data set; None if it has not ``count`` of them."""
    metadata = MetadataCatalog.get(dataset)
    for key in ("stuff_classes", "thing_classes"):  # with things and stuff, the former has all
        names = metadata.get(key)
        if names is not None and len(names) == count:
            return [str(name) for name in names]
    return None


def preprocessor_config(cfg: CfgNode, num_labels: int) -> dict[str, Any]:
    """preprocessor_config.json: resizing and normalisation as at test time here."""
    return {
        "image_processor_type": "Mask2FormerImageProcessor",
        "do_resize": True,
        "size": {
            "shortest_edge": cfg.INPUT.MIN_SIZE_TEST,
            "longest_edge": cfg.INPUT.MAX_SIZE_TEST,
        },
        "size_divisor": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in cfg.MODEL.PIXEL_MEAN],
        "image_std": [value / 255 for value in cfg.MODEL.PIXEL_STD],
        "ignore_index": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        "do_reduce_labels": False,
        "num_labels": num_labels,
    }


def write_hub_folder(
    weights: Mapping[str, Tensor], cfg: CfgNode, folder: str | Path, dataset: str | None = None
) -> list[str] | None:
    """Writes model.safetensors, config.json and preprocessor_config.json.

    Args:
        weights: state dict of ``build_model(cfg)``.
        dataset: whose class names to write; ``DATASETS.TRAIN[0]`` by default.

    Returns:
        the class names that were written, or None when the data set has none that fit.

    Raises:
        WeightsError: ``dataset`` is not registered.
    """
    from safetensors.torch import save_file

    if dataset and dataset not in MetadataCatalog.list():
        raise WeightsError(
            f"there is no data set {dataset!r}{nearest(dataset, MetadataCatalog.list())}; "
            "tools/datasets.py list names all"
        )

    count = len(weights["criterion.empty_weight"]) - 1
    dataset = dataset or next(iter(cfg.DATASETS.TRAIN), "__unnamed__")
    labels = class_names(dataset, count)
    hf_config, hf_weights = to_huggingface(weights, cfg, labels)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    hf_weights = {name: value.contiguous() for name, value in hf_weights.items()}
    save_file(hf_weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf_config, indent=2))
    processor = preprocessor_config(cfg, count)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    return labels
