"""A palette of 74 distinct colours: Matlab's line colours, a coarse RGB grid, and ramps.

The colours and their order are those of Detectron's palette, so that pictures look familiar.
"""

import random
from itertools import product

import numpy as np

from detectron2._missing import missing_getattr

__all__ = ["colormap", "random_color", "random_colors"]

_THIRDS = (0.0, 0.333, 0.667, 1.0)
_SIXTHS = (0.167, 0.333, 0.5, 0.667, 0.833, 1.0)


def _build_palette() -> np.ndarray:
    lines = [
        (0.000, 0.447, 0.741),
        (0.850, 0.325, 0.098),
        (0.929, 0.694, 0.125),
        (0.494, 0.184, 0.556),
        (0.466, 0.674, 0.188),
        (0.301, 0.745, 0.933),
        (0.635, 0.078, 0.184),
    ]
    strong = [(0.3,) * 3, (0.6,) * 3, (1.0, 0.0, 0.0), (1.0, 0.5, 0.0), (0.749, 0.749, 0.0)]
    strong += [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.667, 0.0, 1.0)]
    grid = [(r, g, 0.0) for r, g in product(_THIRDS[1:], repeat=2)]
    grid += [(r, g, 0.5) for r, g in product(_THIRDS, repeat=2) if (r, g) != (0, 0)]
    grid += [(r, g, 1.0) for r, g in product(_THIRDS, repeat=2) if (r, g) not in ((0, 0), (1, 1))]
    ramps = [(x, 0.0, 0.0) for x in _SIXTHS[1:]]
    ramps += [(0.0, x, 0.0) for x in _SIXTHS] + [(0.0, 0.0, x) for x in _SIXTHS]
    greys = [(x,) * 3 for x in (0.0, 0.143, 0.857, 1.0)]
    return np.array(lines + strong + grid + ramps + greys, dtype=np.float32)


_COLORS = _build_palette()


def colormap(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """The whole palette: float32 [74, 3].

    Args:
        rgb: RGB instead of BGR order.
        maximum: 255 or 1, the value of full intensity.
    """
    if maximum not in (1, 255):
        raise AssertionError(f"maximum must be 1 or 255, not {maximum}")
    colors = _COLORS * maximum
    return colors if rgb else colors[:, ::-1]


def random_color(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """One colour of the palette, float32 [3], drawn with numpy's global generator."""
    return colormap(rgb, maximum)[np.random.randint(0, len(_COLORS))]


def random_colors(N: int, rgb: bool = False, maximum: int = 255) -> list[np.ndarray]:
    """``N`` different colours of the palette, drawn with Python's global generator.

    Raises:
        ValueError: more than 74 are asked for.
    """
    colors = colormap(rgb, maximum)
    return [colors[index] for index in random.sample(range(len(_COLORS)), N)]


__getattr__ = missing_getattr(__name__)
