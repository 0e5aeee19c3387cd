"""Colours as people write them, and small changes to them."""

import colorsys

import numpy as np
from PIL import ImageColor

__all__ = ["change_brightness", "jitter", "readable_on_black", "to_rgb"]

# matplotlib's letters, which differ from the colours of the same names.
_LETTERS = {
    "b": (0.0, 0.0, 1.0),
    "g": (0.0, 0.5, 0.0),
    "r": (1.0, 0.0, 0.0),
    "c": (0.0, 0.75, 0.75),
    "m": (0.75, 0.0, 0.75),
    "y": (0.75, 0.75, 0.0),
    "k": (0.0, 0.0, 0.0),
    "w": (1.0, 1.0, 1.0),
}

RGB = tuple[float, float, float]


def to_rgb(color) -> RGB:
    """RGB in [0, 1] of a name, a letter of matplotlib, ``#rrggbb`` or a sequence of 3 or 4 numbers.

    Raises:
        ValueError: something else.
    """
    if isinstance(color, str):
        if color in _LETTERS:
            return _LETTERS[color]
        r, g, b = ImageColor.getrgb(color)[:3]
        return r / 255, g / 255, b / 255
    values = np.asarray(color, dtype=float).reshape(-1)
    if len(values) not in (3, 4):
        raise ValueError(f"A colour has three or four numbers in [0, 1], got {color!r}")
    return tuple(np.clip(values[:3], 0, 1).tolist())


def change_brightness(color, factor: float) -> RGB:
    """Changes the lightness (of HLS) by ``factor``, in [-1, 1]: 0 keeps it, negative darkens."""
    if not -1.0 <= factor <= 1.0:
        raise AssertionError(f"The brightness factor must lie in [-1, 1], got {factor}")
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(color))
    lightness = min(1.0, max(0.0, lightness * (1 + factor)))
    return colorsys.hls_to_rgb(hue, lightness, saturation)


def readable_on_black(color) -> RGB:
    """A colour bright enough for text on a dark box."""
    values = np.maximum(to_rgb(color), 0.2)
    values[values.argmax()] = max(0.8, values.max())
    return tuple(values.tolist())


def jitter(color, rng: np.random.Generator, amount: float = 0.5) -> RGB:
    """A colour moved by a vector of length ``amount`` in a random direction."""
    step = rng.random(3)
    step = step / np.linalg.norm(step) * amount
    return tuple(np.clip(np.asarray(to_rgb(color)) + step, 0, 1).tolist())
