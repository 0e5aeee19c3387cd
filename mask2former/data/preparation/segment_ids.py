"""Ids of panoptic segments: readable colours, as panopticapi draws them.

Rules of panopticapi's ``IdGenerator`` (Kirillov et al., "Panoptic Segmentation", CVPR 2019, and its
code): stuff has the colour of its class; the first thing of a class too, if nothing has it; further
things get a colour at most 30 away from it in each channel.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

Colour = tuple[int, int, int]
_MAX_DISTANCE = 30


class SegmentIds:
    """Gives the segments of one image their colours.

    panopticapi draws from numpy's global generator, so that no two runs agree. Here the generator
    is handed in; the draws are the same.
    """

    def __init__(
        self, categories: Mapping[int, Mapping[str, Any]], random: np.random.RandomState
    ) -> None:
        """Reserves the colours of stuff, and black, which means void.

        Args:
            categories: category id -> row with ``isthing`` and ``color``.
            random: one state an image.
        """
        self._categories = categories
        self._random = random
        self._taken: set[Colour] = {(0, 0, 0)}
        self._taken |= {tuple(c["color"]) for c in categories.values() if not c["isthing"]}

    def colour_of(self, category: int) -> Colour:
        """The colour of a further segment of ``category``; for things no segment has it yet."""
        row = self._categories[category]
        base = tuple(row["color"])
        if not row["isthing"]:
            return base
        colour = base
        while colour in self._taken:
            shift = self._random.randint(-_MAX_DISTANCE, _MAX_DISTANCE + 1, size=3)
            colour = tuple(int(v) for v in np.clip(np.array(base) + shift, 0, 255))
        self._taken.add(colour)
        return colour


def id_of(colour: Colour) -> int:
    """Panoptic coding: R + 256 G + 65536 B."""
    red, green, blue = colour
    return red + 256 * green + 65536 * blue
