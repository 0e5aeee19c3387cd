"""Lazy configs on omegaconf: call descriptions, and YAML files of them.

Minimal on purpose. detectron2's lazy configs are Python files; d2lite never executes a config
file, so those need detectron2 itself.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from detectron2._missing import missing_getattr
from detectron2.utils.file_io import PathManager

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["LazyCall", "LazyConfig"]


def _omegaconf() -> Any:
    try:
        import omegaconf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Lazy configs need the package omegaconf: pip install omegaconf", name=error.name
        ) from error
    return omegaconf


class LazyCall:
    """``LazyCall(f)(a=1)`` describes the call ``f(a=1)`` for ``instantiate``."""

    def __init__(self, target: Any) -> None:
        if not (callable(target) or isinstance(target, (str, Mapping))):
            raise TypeError(f"target of LazyCall must be a callable or defines one, not {target}")
        self._target = target

    def __call__(self, **kwargs: Any) -> DictConfig:
        content = {**kwargs, "_target_": self._target}
        return _omegaconf().DictConfig(content=content, flags={"allow_objects": True})


class LazyConfig:
    """Load, change and save lazy configs."""

    @staticmethod
    def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a YAML file.

        Args:
            filename: ends in .yaml or .yml.
            keys: return only the value of this key, or the values of these keys.

        Raises:
            ValueError: a Python file, or another extension.
        """
        if filename.endswith(".py"):
            raise ValueError(
                f"{filename}: lazy configs in Python are programs, and d2lite does not run config "
                "files; install detectron2 itself for them"
            )
        if not filename.endswith((".yaml", ".yml")):
            raise ValueError(f"Config file {filename} has to be a .yaml or .yml file.")
        with PathManager.open(filename) as stream:
            loaded = yaml.safe_load(stream)
        config = _omegaconf().OmegaConf.create(loaded, flags={"allow_objects": True})
        if keys is None:
            return config
        if isinstance(keys, str):
            return config[keys]
        return tuple(config[key] for key in keys)

    @staticmethod
    def save(cfg: Any, filename: str) -> None:
        """Write ``cfg`` as YAML; call targets are written by their dotted names."""
        omegaconf = _omegaconf()
        plain = omegaconf.OmegaConf.to_container(cfg, resolve=False)
        with PathManager.open(filename, "w") as stream:
            yaml.safe_dump(_with_names(plain), stream, sort_keys=True)

    @staticmethod
    def apply_overrides(cfg: Any, overrides: list[str]) -> Any:
        """Set values in place, ``["model.depth=50", "train.lr=0.1"]``; returns ``cfg``.

        Values are Python literals (``1e-4``), else YAML. Missing parents are made.

        Raises:
            ValueError: an entry without "=".
            KeyError: a parent of the key is a value, not a mapping.
        """
        omegaconf = _omegaconf()
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals:
                raise ValueError(f"Override {override!r} has no '=': write key=value")
            key = key.lstrip("+")
            parts = key.split(".")
            for i in range(1, len(parts)):
                parent = omegaconf.OmegaConf.select(cfg, ".".join(parts[:i]))
                if parent is None:
                    break
                if not omegaconf.OmegaConf.is_config(parent):
                    raise KeyError(
                        f"Override {override!r}: {'.'.join(parts[:i])} is not a config, but has "
                        f"type {type(parent).__name__}"
                    )
            omegaconf.OmegaConf.update(cfg, key, _value(text), merge=True, force_add=True)
        return cfg


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)  # YAML 1.1 takes 1e-4, without a dot, for a string
    except (ValueError, SyntaxError):
        return yaml.safe_load(text)


def _with_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_names(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_names(x) for x in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value


__getattr__ = missing_getattr(__name__)
