"""Build objects from mappings that name their class: ``{"_target_": "torch.nn.Linear", ...}``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from detectron2._missing import missing_getattr
from detectron2.utils.registry import locate

__all__ = ["dump_dataclass", "instantiate", "locate"]


def dump_dataclass(obj: Any) -> dict[str, Any]:
    """A dataclass object as a mapping that :func:`instantiate` turns back into it."""
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        raise AssertionError("dump_dataclass() requires an instance of a dataclass")
    result: dict[str, Any] = {"_target_": f"{type(obj).__module__}.{type(obj).__qualname__}"}
    for field in dataclasses.fields(obj):
        value = getattr(obj, field.name)
        if dataclasses.is_dataclass(value):
            value = dump_dataclass(value)
        elif isinstance(value, (list, tuple)):
            value = [dump_dataclass(x) if dataclasses.is_dataclass(x) else x for x in value]
        result[field.name] = value
    return result


def instantiate(cfg: Any) -> Any:
    """Call ``_target_`` (a callable or its dotted name) with the other keys, innermost first.

    Lists are gone through; anything else without ``_target_`` is returned as it is.

    Raises:
        AssertionError: the target is not callable.
    """
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None and isinstance(cfg, omegaconf.ListConfig):
        return omegaconf.ListConfig([instantiate(x) for x in cfg], flags={"allow_objects": True})
    if isinstance(cfg, list):
        return [instantiate(x) for x in cfg]
    if not (isinstance(cfg, Mapping) and "_target_" in cfg):
        return cfg
    arguments = {name: instantiate(value) for name, value in cfg.items()}
    target = arguments.pop("_target_")
    name = target
    if isinstance(target, str):
        target = locate(target)
    if not callable(target):
        raise AssertionError(f"_target_ {name} does not define a callable object")
    try:
        return target(**arguments)
    except TypeError as error:
        error.add_note(f"while instantiating {name} with arguments {sorted(arguments)}")
        raise


__getattr__ = missing_getattr(__name__)
