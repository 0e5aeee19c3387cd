"""Names that numpy has dropped, for packages that are no longer kept up with it."""

from types import ModuleType
from typing import Any

import numpy as np

# cityscapesscripts 2.3 uses in1d (gone in numpy 2.4), lvis 0.5 uses float (gone in 1.24).
_DROPPED = {"in1d": np.isin, "float": float, "int": int, "bool": bool, "object": object}


class _LegacyNumpy:
    def __getattr__(self, name: str) -> Any:
        return _DROPPED[name] if name in _DROPPED else getattr(np, name)


def give_legacy_numpy(module: ModuleType) -> None:
    """Lets one module, and no other, find the dropped names in its ``np``."""
    module.np = _LegacyNumpy()
