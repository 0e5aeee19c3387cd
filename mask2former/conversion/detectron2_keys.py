"""Files of the published zoo and of this project: same names, but older layouts exist.

Up to a change in early 2022 the pixel decoder's parameters lay directly under the head, and
``query_feat`` was called ``static_query``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .key_map import Renamed

_HEAD = "sem_seg_head."
# Made by the model itself.
_IGNORED = ("pixel_mean", "pixel_std")


def current_name(name: str) -> str:
    """The present name of a parameter of any layout."""
    if name.startswith(_HEAD):
        part = name.removeprefix(_HEAD).split(".")[0]
        if part not in ("predictor", "pixel_decoder"):
            name = f"{_HEAD}pixel_decoder.{name.removeprefix(_HEAD)}"
    return name.replace(".static_query.", ".query_feat.")


def from_detectron2_zoo(theirs: Mapping[str, Tensor]) -> Renamed:
    """Renames what has an old name; everything else stays."""
    renamed = Renamed()
    for name, value in theirs.items():
        if name not in _IGNORED:
            ours = current_name(name)
            renamed.weights[ours] = value
            renamed.sources[ours] = (name,)
    return renamed
