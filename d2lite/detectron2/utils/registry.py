"""Name -> object tables (``Registry`` is fvcore's) and lookup by dotted name."""

import importlib
from typing import Any

from fvcore.common.registry import Registry

from detectron2._missing import missing_getattr

__all__ = ["Registry", "locate"]


def locate(name: str) -> Any:
    """Return the object with the dotted name ``name``, e.g. ``"torch.nn.Linear"``.

    Raises:
        ImportError: no module along the name has such an attribute.
    """
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        module_name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module exists; something that it imports does not
            continue
        try:
            for attribute in parts[split:]:
                found = getattr(found, attribute)
        except AttributeError as error:
            raise ImportError(f"Cannot locate object {name!r}: {error}") from error
        return found
    raise ImportError(f"Cannot locate object {name!r}: no module of that name can be imported")


__getattr__ = missing_getattr(__name__)
