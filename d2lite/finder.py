"""Lets ``import detectron2`` find d2lite, and only where no real detectron2 exists.

A ``.pth`` file calls :func:`install` when Python starts. The finder stands first in
``sys.meta_path`` but asks every other finder before it answers, so a detectron2 that the user has
installed in whatever form (wheel, editable, PYTHONPATH, a folder next to the script) always wins.
Standing first matters for one case only: a folder ``detectron2/`` without ``__init__.py`` in the
working directory (a clone of its repository, say) would otherwise hide d2lite as an empty
namespace package.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parent


class D2liteFinder:
    """Meta-path finder for the top-level name ``detectron2``."""

    def __init__(self, root: Path = ROOT):
        self.package = root / "detectron2"

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        """Returns d2lite's spec for ``detectron2`` unless another finder has a regular package."""
        if name != "detectron2":
            return None
        for finder in sys.meta_path:
            if type(finder).__name__ == "D2liteFinder" or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            # A namespace package (a bare folder) has no origin; it is not an installation.
            if spec is not None and spec.origin is not None:
                return spec
        return spec_from_file_location(
            name,
            self.package / "__init__.py",
            submodule_search_locations=[str(self.package)],
        )


def install() -> None:
    """Adds the finder, once, whichever distribution (d2lite or mask2former) carries it."""
    if not any(type(finder).__name__ == "D2liteFinder" for finder in sys.meta_path):
        sys.meta_path.insert(0, D2liteFinder())
