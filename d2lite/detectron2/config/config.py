"""CfgNode: the configuration tree, read from YAML files that can never run code."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as _CfgNode

from detectron2._missing import missing_getattr
from detectron2.config._configurable import configurable
from detectron2.config._yaml import ConfigLoader
from detectron2.utils.file_io import PathManager

__all__ = ["CfgNode", "configurable", "get_cfg", "global_cfg", "set_global_cfg"]


class CfgNode(_CfgNode):
    """A tree of keys; fvcore's (and yacs') node with versions and a safe file reader.

    * Unknown keys, and values of another type than the default, are refused when merging.
    * ``_BASE_: file`` (or a list of files) in a YAML file inherits; paths are relative to the
      file.
    * Keys that begin with ``COMPUTED_`` may be set once, even on a frozen node.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> Any:
        return PathManager.open(filename, "r")

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Read a YAML file and the files named by its ``_BASE_`` as one plain dict.

        Args:
            filename: a path or an address that PathManager can open.
            allow_unsafe: also accept ``!!python/object/apply:eval`` lists of arithmetic (see
                ``_yaml.py``). Nothing is ever executed, whatever its value; the name is
                detectron2's.

        Raises:
            yaml.YAMLError: malformed, or a tag that is not allowed; names file and line.
            FileNotFoundError: a base file does not exist.
            ValueError: bases that include each other, or a file that is no mapping.
        """
        return cls._load_with_bases(filename, allow_unsafe, ())

    @classmethod
    def _load_with_bases(
        cls, filename: str, allow_unsafe: bool, including: tuple[str, ...]
    ) -> dict[str, Any]:
        if filename in including:
            raise ValueError(f"{BASE_KEY} goes in circles: " + " -> ".join((*including, filename)))
        loader = ConfigLoader if allow_unsafe else yaml.SafeLoader
        with cls._open_cfg(filename) as stream:
            loaded = yaml.load(stream, Loader=loader)  # both loaders are safe ones
        if loaded is None:
            loaded = {}
        if not isinstance(loaded, dict):
            raise ValueError(f"Config file {filename} is no mapping of keys to values")
        if BASE_KEY not in loaded:
            return loaded

        bases = loaded.pop(BASE_KEY)
        merged: dict[str, Any] = {}
        for base in bases if isinstance(bases, list) else [bases]:
            base_file = _resolve_base(base, filename)
            if not PathManager.isfile(base_file) and "://" not in base_file:
                raise FileNotFoundError(
                    f"{filename}: {BASE_KEY} names {base}, but {base_file} does not exist"
                )
            content = cls._load_with_bases(base_file, allow_unsafe, (*including, filename))
            _merge_deep(content, merged, filename)
        _merge_deep(loaded, merged, filename)
        return merged

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file into this tree; files of older key versions are upgraded.

        Raises:
            AssertionError: the file does not exist, or its VERSION is newer than this tree's.
            KeyError: an unknown key ("Non-existent config key: A.B").
            ValueError: a value whose type does not fit the default.
        """
        from detectron2.config.compat import downgrade_config, guess_version, upgrade_config
        from detectron2.config.defaults import _C

        if not PathManager.isfile(cfg_filename):
            raise AssertionError(f"Config file '{cfg_filename}' does not exist!")
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        if self.VERSION != _C.VERSION:
            raise AssertionError(
                f"merge_from_file needs a tree of version {_C.VERSION}, not {self.VERSION}"
            )
        version = loaded.get("VERSION")
        if version is None:
            version = guess_version(loaded, cfg_filename)
        if version > self.VERSION:
            raise AssertionError(
                f"Cannot merge a v{version} config into a v{self.VERSION} config: "
                f"{cfg_filename} was written for a newer version"
            )
        if version == self.VERSION:
            self.merge_from_other_cfg(loaded)
            return
        self._refuse_if_frozen()
        logging.getLogger(__name__).warning(
            "Loading an old v%d config file '%s' by automatically upgrading it to v%d",
            version,
            cfg_filename,
            self.VERSION,
        )
        old_self = downgrade_config(self, to_version=version)
        old_self.merge_from_other_cfg(loaded)
        upgraded = upgrade_config(old_self)
        self.clear()
        self.update(upgraded)

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        """Merge another tree; see the class for what is refused.

        Raises:
            AttributeError: this tree is frozen.
        """
        self._refuse_if_frozen()
        super().merge_from_other_cfg(cfg_other)

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        """Merge ``[key, value, key, value, ...]``; values may be text as typed by a user.

        Raises:
            AssertionError: an odd number of items, or an unknown key ("Non-existent key: A.B").
            ValueError: a value whose type does not fit the default.
            AttributeError: this tree is frozen.
        """
        if cfg_list:
            self._refuse_if_frozen()
        super().merge_from_list(cfg_list)

    def _refuse_if_frozen(self) -> None:
        if self.is_frozen():
            raise AttributeError("Cannot merge into a frozen CfgNode; call defrost() first")

    def dump(self, **kwargs: Any) -> str:
        """The tree as YAML text: keys sorted, tuples and lists both as lists, no references.

        Args:
            kwargs: passed to ``yaml.dump``.

        Raises:
            yaml.YAMLError: a value that is no plain data.
        """
        return yaml.dump(_plain(self), Dumper=_PlainDumper, **kwargs)


class _PlainDumper(yaml.SafeDumper):
    """Writes equal values out again, instead of ``&id001`` here and ``*id001`` there."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _resolve_base(base: str, including_file: str) -> str:
    if base.startswith("~"):
        return os.path.expanduser(base)
    if base.startswith(("/", "https://", "http://")):
        return base
    return os.path.join(os.path.dirname(including_file), base)


def _merge_deep(source: Mapping[str, Any], target: dict[str, Any], filename: str) -> None:
    """Merge mappings key by key; values of ``source`` win."""
    for key, value in source.items():
        if isinstance(value, dict) and key in target:
            if not isinstance(target[key], dict):
                raise AssertionError(f"{filename}: cannot inherit key '{key}' from base!")
            _merge_deep(value, target[key], filename)
        else:
            target[key] = value


global_cfg = CfgNode()
"""See :func:`set_global_cfg`."""


def get_cfg() -> CfgNode:
    """A fresh copy of the default tree, see ``defaults.py``."""
    from detectron2.config.defaults import _C

    return _C.clone()


def set_global_cfg(cfg: CfgNode) -> None:
    """Make ``detectron2.config.global_cfg`` show ``cfg``.

    A stopgap for code that a config cannot be handed to; discouraged, here as in detectron2.
    """
    global_cfg.clear()
    global_cfg.update(cfg)


__getattr__ = missing_getattr(__name__)
