"""Instances: per-object fields of one image, indexed together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from detectron2._missing import missing_getattr

__all__ = ["Instances"]


class Instances:
    """Fields of N objects of one image (boxes, masks, scores, ...), each of length N.

    Fields are attributes (``inst.scores = ...``); names that start with ``_`` are not fields.
    Indexing, moving to a device and concatenation act on all fields::

        kept = instances[instances.scores > 0.5].to("cpu")
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        """
        Args:
            image_size: (height, width) in pixels.
            kwargs: fields to set.
        """
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._image_size

    # -- fields ----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # "_fields" itself is asked for while an object is being unpickled or copied.
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"Cannot find field '{name}' in the given Instances!")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set a field.

        Raises:
            AssertionError: its length differs from that of the present fields.
        """
        if self._fields and len(value) != len(self):
            raise AssertionError(
                f"Adding a field of length {len(value)} to Instances of length {len(self)}: {name}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The live dict of fields; changing it changes the object."""
        return self._fields

    # -- acting on all fields --------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A copy whose fields were moved by their own ``to(...)``, where they have one."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved._fields[name] = value.to(*args, **kwargs) if hasattr(value, "to") else value
        return moved

    def __getitem__(self, item: int | slice | torch.Tensor) -> Instances:
        """Select objects.

        Args:
            item: an int (keeps the object axis, result of length 1), a slice, a bool tensor [N]
                or a tensor of indices.

        Raises:
            IndexError: an int out of range.
        """
        if type(item) is int:
            length = len(self)
            if not -length <= item < length:
                raise IndexError("Instances index out of range!")
            item = slice(item, None, length)
        selected = Instances(self._image_size)
        for name, value in self._fields.items():
            selected.set(name, value[item])
        return selected

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Empty Instances does not support __len__!")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("`Instances` object is not iterable!")

    @staticmethod
    def cat(instance_lists: list[Instances]) -> Instances:
        """Concatenate objects of one image.

        Tensors are joined by ``torch.cat``, lists are chained, other fields need a ``cat`` of
        their own. A single element is returned as it is.

        Raises:
            AssertionError: empty input, or different image sizes.
            ValueError: a field's type cannot be concatenated.
        """
        if not instance_lists or not all(isinstance(x, Instances) for x in instance_lists):
            raise AssertionError("Instances.cat needs a non-empty list of Instances")
        if len(instance_lists) == 1:
            return instance_lists[0]
        image_size = instance_lists[0].image_size
        for other in instance_lists[1:]:
            if other.image_size != image_size:
                raise AssertionError(
                    f"Instances.cat: image sizes {image_size} and {other.image_size} differ"
                )
        result = Instances(image_size)
        for name, first in instance_lists[0]._fields.items():
            values = [x.get(name) for x in instance_lists]
            if isinstance(first, torch.Tensor):
                joined: Any = torch.cat(values, dim=0)
            elif isinstance(first, list):
                joined = list(itertools.chain(*values))
            elif hasattr(type(first), "cat"):
                joined = type(first).cat(values)
            else:
                raise ValueError(f"Unsupported type {type(first)} for concatenation")
            result.set(name, joined)
        return result

    def __str__(self) -> str:
        count = len(self) if self._fields else 0
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        height, width = self._image_size
        return (
            f"Instances(num_instances={count}, image_height={height}, "
            f"image_width={width}, fields=[{fields}])"
        )

    __repr__ = __str__


__getattr__ = missing_getattr(__name__)
