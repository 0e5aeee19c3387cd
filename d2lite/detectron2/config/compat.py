"""Older versions of the key names: a tree can go down and up between versions.

v0 -> v1 moved the RPN head's name, v1 -> v2 gave many keys better names. A file of an older
version is merged into the tree at that version, which is then upgraded.
"""

from __future__ import annotations

import logging
from typing import Any

from detectron2._missing import missing_getattr
from detectron2.config.config import CfgNode as CN

__all__ = ["downgrade_config", "guess_version", "upgrade_config"]


def upgrade_config(cfg: CN, to_version: int | None = None) -> CN:
    """A copy of ``cfg`` at ``to_version`` (default: the current version)."""
    cfg = cfg.clone()
    if to_version is None:
        to_version = _current_version()
    if to_version < cfg.VERSION:
        raise AssertionError(f"Cannot upgrade from v{cfg.VERSION} to v{to_version}")
    for version in range(cfg.VERSION, to_version):
        _CONVERTERS[version + 1].upgrade(cfg)
        _set(cfg, "VERSION", version + 1)
    return cfg


def downgrade_config(cfg: CN, to_version: int) -> CN:
    """A copy of ``cfg`` at the older ``to_version``; keys without an older name are kept."""
    cfg = cfg.clone()
    if to_version > cfg.VERSION:
        raise AssertionError(f"Cannot downgrade from v{cfg.VERSION} to v{to_version}")
    for version in range(cfg.VERSION, to_version, -1):
        _CONVERTERS[version].downgrade(cfg)
        _set(cfg, "VERSION", version - 1)
    return cfg


def guess_version(cfg: CN, filename: str) -> int:
    """The version of a file without the key VERSION: 1 if it has v1 names, else the current.

    Either way a warning is logged.
    """
    logger = logging.getLogger(__name__)
    if _has(cfg, "MODEL.WEIGHT") or _has(cfg, "TEST.AUG_ON"):
        logger.warning("Config '%s' has no VERSION. Assuming it to be v1.", filename)
        return 1
    current = _current_version()
    logger.warning(
        "Config '%s' has no VERSION. Assuming it to be compatible with latest v%d.",
        filename,
        current,
    )
    return current


def _current_version() -> int:
    from detectron2.config.defaults import _C

    return _C.VERSION


def _get(cfg: CN, name: str) -> Any:
    for key in name.split("."):
        cfg = cfg[key]
    return cfg


def _has(cfg: CN, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(cfg, dict) or key not in cfg:
            return False
        cfg = cfg[key]
    return True


def _set(cfg: CN, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for key in parents:
        if key not in cfg:
            cfg[key] = type(cfg)()
        cfg = cfg[key]
    cfg[last] = value  # item access works on frozen nodes too


def _delete(cfg: CN, name: str) -> None:
    """Delete a key, and its parents as far as that leaves them empty."""
    parent, _, last = name.rpartition(".")
    node = _get(cfg, parent) if parent else cfg
    del node[last]
    if parent and not node:
        _delete(cfg, parent)


def _rename(cfg: CN, old: str, new: str) -> None:
    if _has(cfg, old):
        value = _get(cfg, old)
        _delete(cfg, old)
        _set(cfg, new, value)


class _RenameConverter:
    """Converts between version k - 1 and k: (old name, new name) pairs, plus special cases."""

    RENAME: tuple[tuple[str, str], ...] = ()

    @classmethod
    def upgrade(cls, cfg: CN) -> None:
        for old, new in cls.RENAME:
            _rename(cfg, old, new)
        cls._upgrade_more(cfg)

    @classmethod
    def downgrade(cls, cfg: CN) -> None:
        for old, new in cls.RENAME:
            _rename(cfg, new, old)
        cls._downgrade_more(cfg)

    @classmethod
    def _upgrade_more(cls, cfg: CN) -> None:
        pass

    @classmethod
    def _downgrade_more(cls, cfg: CN) -> None:
        pass


class ConverterV1(_RenameConverter):
    """v0 -> v1"""

    RENAME = (("MODEL.RPN_HEAD.NAME", "MODEL.RPN.HEAD_NAME"),)


_COMBINE = "MODEL.PANOPTIC_FPN.COMBINE"
_RETINANET = "MODEL.RETINANET"


class ConverterV2(_RenameConverter):
    """v1 -> v2; one anchor generator section replaces those of RPN and RetinaNet."""

    RENAME = (
        ("MODEL.WEIGHT", "MODEL.WEIGHTS"),
        ("MODEL.PANOPTIC_FPN.SEMANTIC_LOSS_SCALE", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT"),
        ("MODEL.PANOPTIC_FPN.RPN_LOSS_SCALE", "MODEL.RPN.LOSS_WEIGHT"),
        ("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_SCALE", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT"),
        (f"{_COMBINE}_ON", f"{_COMBINE}.ENABLED"),
        (f"{_COMBINE}_OVERLAP_THRESHOLD", f"{_COMBINE}.OVERLAP_THRESH"),
        (f"{_COMBINE}_STUFF_AREA_LIMIT", f"{_COMBINE}.STUFF_AREA_LIMIT"),
        (
            f"{_COMBINE}_INSTANCES_CONFIDENCE_THRESHOLD",
            f"{_COMBINE}.INSTANCES_CONFIDENCE_THRESH",
        ),
        ("MODEL.ROI_HEADS.SCORE_THRESH", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
        ("MODEL.ROI_HEADS.NMS", "MODEL.ROI_HEADS.NMS_THRESH_TEST"),
        (f"{_RETINANET}.INFERENCE_SCORE_THRESHOLD", f"{_RETINANET}.SCORE_THRESH_TEST"),
        (f"{_RETINANET}.INFERENCE_TOPK_CANDIDATES", f"{_RETINANET}.TOPK_CANDIDATES_TEST"),
        (f"{_RETINANET}.INFERENCE_NMS_THRESHOLD", f"{_RETINANET}.NMS_THRESH_TEST"),
        ("TEST.DETECTIONS_PER_IMG", "TEST.DETECTIONS_PER_IMAGE"),
        ("TEST.AUG_ON", "TEST.AUG.ENABLED"),
        ("TEST.AUG_MIN_SIZES", "TEST.AUG.MIN_SIZES"),
        ("TEST.AUG_MAX_SIZE", "TEST.AUG.MAX_SIZE"),
        ("TEST.AUG_FLIP", "TEST.AUG.FLIP"),
    )

    @classmethod
    def _upgrade_more(cls, cfg: CN) -> None:
        is_retinanet = _has(cfg, "MODEL.META_ARCHITECTURE") and (
            cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
        )
        used, unused = ("RETINANET", "RPN") if is_retinanet else ("RPN", "RETINANET")
        for key in ("ASPECT_RATIOS", "SIZES"):
            _rename(cfg, f"MODEL.{used}.ANCHOR_{key}", f"MODEL.ANCHOR_GENERATOR.{key}")
            if _has(cfg, f"MODEL.{unused}.ANCHOR_{key}"):
                _delete(cfg, f"MODEL.{unused}.ANCHOR_{key}")
        if _has(cfg, f"{_RETINANET}.ANCHOR_STRIDES"):
            _delete(cfg, f"{_RETINANET}.ANCHOR_STRIDES")

    @classmethod
    def _downgrade_more(cls, cfg: CN) -> None:
        for key in ("ASPECT_RATIOS", "SIZES"):
            value = _get(cfg, f"MODEL.ANCHOR_GENERATOR.{key}")
            _delete(cfg, f"MODEL.ANCHOR_GENERATOR.{key}")
            _set(cfg, f"MODEL.RPN.ANCHOR_{key}", value)
            _set(cfg, f"{_RETINANET}.ANCHOR_{key}", value)
        _set(cfg, f"{_RETINANET}.ANCHOR_STRIDES", [])  # unused in every version


# version -> the converter between the version before and it
_CONVERTERS: dict[int, type[_RenameConverter]] = {1: ConverterV1, 2: ConverterV2}

__getattr__ = missing_getattr(__name__)
