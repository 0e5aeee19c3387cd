"""Clear errors for names of detectron2 that d2lite does not carry.

How an author of a d2lite module uses it: one line in every module (and package) whose name
detectron2 has too::

    from detectron2._missing import missing_getattr

    __getattr__ = missing_getattr(__name__)

After that

* ``from detectron2.layers import nms_rotated``: a public detectron2 name that d2lite lacks: an
  ImportError which says so in one sentence and how to install detectron2 itself;
* ``detectron2.layers.nms_rotated``: the same sentence as an AttributeError, so that
  ``hasattr`` and ``getattr(..., default)`` answer as they should;
* ``from detectron2.layers import Conv2D``: a name that detectron2 does not have either: the
  usual error, with the nearest name as a hint;
* ``detectron2.utils.visualizer`` after a mere ``import detectron2.utils``: imported on access.

Missing submodules need no line: a finder at the end of ``sys.meta_path`` (installed by
``detectron2/__init__.py``) answers for them. Nothing here imports torch.
"""

import difflib
import importlib
import importlib.abc
import json
import opcode
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

_INSTALL_HINT = (
    "install detectron2 itself for it (it then replaces d2lite by itself): "
    "pip install 'git+https://github.com/facebookresearch/detectron2.git'"
)


@cache
def public_names() -> dict[str, frozenset[str]]:
    """Public names of detectron2's main branch: ``{"detectron2.layers": {"Conv2d", ...}, ...}``."""
    text = Path(__file__).with_name("_public_names.json").read_text(encoding="utf-8")
    return {module: frozenset(names.split()) for module, names in json.loads(text).items()}


def missing_message(module: str, name: str | None = None) -> str:
    """The sentence for a public name (or, without ``name``, a public module) d2lite lacks."""
    what = f"the module '{module}'" if name is None else f"'{name}' of '{module}'"
    return f"d2lite, the small detectron2 in use here, does not carry {what}; {_INSTALL_HINT}"


def _nearest(word: str, possibilities: list[str]) -> str:
    matches = difflib.get_close_matches(word, possibilities, n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def _is_from_import(frame: FrameType | None) -> bool:
    """Whether ``frame`` is executing ``from module import name``.

    Python turns an AttributeError into its own "cannot import name" and drops our text, so that
    statement has to get an ImportError; everything else (hasattr!) has to get an AttributeError.
    """
    if frame is None or frame.f_lasti < 0:
        return False
    return opcode.opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"


def missing_getattr(module: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` (PEP 562) for the module of this name; see the file's docstring."""

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        importing = _is_from_import(sys._getframe(1))
        public = public_names()
        full = f"{module}.{name}"
        if full in public and find_spec_quietly(full):
            return importlib.import_module(full)
        if name in public.get(module, ()):
            message = missing_message(module, name)
        elif full in public:
            message = missing_message(full)
        else:
            known = set(public.get(module, ())) | set(vars(sys.modules[module]))
            hint = _nearest(name, sorted(n for n in known if not n.startswith("_")))
            if importing:
                message = f"cannot import name {name!r} from {module!r}.{hint}"
            else:
                message = f"module {module!r} has no attribute {name!r}.{hint}"
        if importing:
            raise ImportError(message, name=module)
        raise AttributeError(message)

    return __getattr__


def find_spec_quietly(module: str) -> bool:
    """Whether ``module`` exists in d2lite (``find_spec`` without our finder's error)."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class MissingModuleFinder(importlib.abc.MetaPathFinder):
    """Last in ``sys.meta_path``: explains submodules of ``detectron2`` that nobody found."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if not fullname.startswith("detectron2."):
            return None
        public = public_names()
        parent, _, child = fullname.rpartition(".")
        if fullname in public:
            raise ModuleNotFoundError(missing_message(fullname), name=fullname)
        if parent in public and child not in public[parent] and not child.startswith("_"):
            siblings = [m.rpartition(".")[2] for m in public if m.rpartition(".")[0] == parent]
            hint = _nearest(child, siblings)
            raise ModuleNotFoundError(f"No module named {fullname!r}.{hint}", name=fullname)
        return None


def install() -> None:
    """Put the finder at the end of ``sys.meta_path`` (once)."""
    if not any(isinstance(finder, MissingModuleFinder) for finder in sys.meta_path):
        sys.meta_path.append(MissingModuleFinder())
