"""numpy as packages knew it that are no longer kept up (lvis 0.5, cityscapesscripts 2.3)."""

from types import ModuleType
from typing import Any

import numpy as np

# Removed names and what stands for them today.
_REMOVED = {"in1d": np.isin, "float": float, "int": int, "bool": bool, "object": object}


class _OldNumpy:
    """Every name of numpy, and the removed ones."""

    def __getattr__(self, name: str) -> Any:
        return _REMOVED[name] if name in _REMOVED else getattr(np, name)


def give_old_numpy(module: ModuleType) -> None:
    """Lets one module (and no other) see the removed names in its ``np``."""
    module.np = _OldNumpy()
