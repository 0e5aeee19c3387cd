"""Names of data sets: how to load each (DatasetCatalog), what is known of it (MetadataCatalog)."""

import difflib
import logging
import types
from collections import UserDict
from collections.abc import Callable
from typing import Any

from detectron2._missing import missing_getattr
from detectron2.utils.logger import log_first_n

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class _DatasetCatalog(UserDict):
    """Mapping from a data set's name to the function that returns its records.

    The function takes no argument and returns ``list[dict]`` (or a ``torch.utils.data.Dataset``);
    it is called anew by every :meth:`get`, so registering costs nothing.
    """

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Make ``func`` the loader of ``name``.

        Raises:
            AssertionError: ``func`` is not callable, or ``name`` is taken.
        """
        if not callable(func):
            raise AssertionError(
                f"DatasetCatalog.register('{name}', ...) needs a function without arguments, "
                f"got {type(func).__name__}"
            )
        if name in self:
            raise AssertionError(
                f"Dataset '{name}' is already registered! DatasetCatalog.remove('{name}') first."
            )
        self[name] = func

    def get(self, name: str) -> list[dict]:
        """Call the loader of ``name`` and return its records.

        Raises:
            KeyError: unknown name; the message gives the nearest names first, then all.
            FileNotFoundError: from the loader; says which data set could not be loaded.
        """
        try:
            loader = self[name]
        except KeyError:
            raise KeyError(self._unknown(name)) from None
        try:
            return loader()
        except FileNotFoundError as error:
            if type(error) is not FileNotFoundError or name in str(error):
                raise
            raise FileNotFoundError(f"Dataset '{name}' cannot be loaded: {error}") from error

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(str(name), list(self), n=3, cutoff=0.6)
        hint = f"Did you mean: {', '.join(near)}? " if near else ""
        known = ", ".join(sorted(self)) or "none"
        return f"Dataset '{name}' is not registered! {hint}Available datasets are: {known}"

    def list(self) -> list[str]:
        """Names of all registered data sets."""
        return list(self.keys())

    def remove(self, name: str) -> None:
        """Forget ``name`` (KeyError when unknown); its metadata stays."""
        self.pop(name)

    def __str__(self) -> str:
        return f"DatasetCatalog(registered datasets: {', '.join(self)})"

    __repr__ = __str__


# Names of the very first detectron2 releases, still found in user scripts.
_RENAMED = {
    "class_names": "thing_classes",
    "dataset_id_to_contiguous_id": "thing_dataset_id_to_contiguous_id",
    "stuff_class_names": "stuff_classes",
}


class Metadata(types.SimpleNamespace):
    """What is known of one data set, as attributes.

    An attribute can be set again to an equal value only, so that two parts of a program cannot
    disagree in silence; delete it first to change it. Reading an unknown one is an AttributeError
    that names the data set and the known keys.
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        if key in _RENAMED:
            return getattr(self, _current_name(key))
        if len(self.__dict__) > 1:
            known = f"Available keys are {sorted(self.__dict__)}."
        else:
            known = "Its metadata is empty."
        raise AttributeError(
            f"Attribute '{key}' does not exist in the metadata of dataset '{self.name}'. {known}"
        )

    def __setattr__(self, key: str, value: Any) -> None:
        if key in _RENAMED:
            key = _current_name(key)
        if key in self.__dict__ and not _same(self.__dict__[key], value):
            raise AssertionError(
                f"Attribute '{key}' in the metadata of '{self.name}' cannot be set to a different "
                f"value!\n{self.__dict__[key]} != {value}"
            )
        super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """All attributes, shallowly copied."""
        return dict(self.__dict__)

    def set(self, **kwargs: Any) -> "Metadata":
        """Set several attributes; returns self."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or ``default`` where there is none."""
        try:
            return getattr(self, key)
        except AttributeError:
            return default


def _current_name(key: str) -> str:
    log_first_n(logging.WARNING, f"Metadata '{key}' was renamed to '{_RENAMED[key]}'!", n=10)
    return _RENAMED[key]


def _same(old: Any, new: Any) -> bool:
    equal = old == new
    # Arrays compare element by element.
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal)


class _MetadataCatalog(UserDict):
    """Mapping from a data set's name to its :class:`Metadata`."""

    def get(self, name: str) -> Metadata:
        """The metadata of ``name``, made empty at the first call."""
        if not name:
            raise AssertionError("MetadataCatalog.get() needs the name of a dataset, got ''")
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def list(self) -> list[str]:
        """Names that have metadata."""
        return list(self.keys())

    def remove(self, name: str) -> None:
        """Forget the metadata of ``name`` (KeyError when unknown)."""
        self.pop(name)

    def __str__(self) -> str:
        return f"MetadataCatalog(registered metadata: {', '.join(self)})"

    __repr__ = __str__


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()

__getattr__ = missing_getattr(__name__)
