"""Where stuff goes: two or three bands with wavy, tilted borders, like ground, back and sky."""

import numpy as np

from .noise import value_noise

_UPPER = ("sky", "brick", "wood")
_LOWER = ("grass", "water", "sand")


def stuff_bands(rng: np.random.Generator, height: int, width: int) -> tuple[list[str], np.ndarray]:
    """Draws the background's classes and which pixel belongs to which.

    Returns:
        names from top to bottom (1 to 3, all different), and int32 [H, W] with the index of each
        pixel's band.
    """
    names = [str(rng.choice(_UPPER)), str(rng.choice(_LOWER))]
    kind = rng.random()
    if kind < 0.12:
        names = [names[int(rng.integers(2))]]
    elif kind < 0.45:
        rest = [n for n in _UPPER + _LOWER if n not in names]
        names.insert(1, str(rng.choice(rest)))
    edges = np.sort(rng.uniform(0.25, 0.75, len(names) - 1))
    if len(edges) == 2 and edges[1] - edges[0] < 0.2:  # room for the middle band
        middle = np.clip(edges.mean(), 0.36, 0.64)
        edges = np.array([middle - 0.13, middle + 0.13])
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    bands = np.zeros((height, width), np.int32)
    for edge in edges:
        wave = value_noise(rng, 2, width, (1, rng.uniform(2, 6)), octaves=2)[0]
        border = edge + rng.uniform(-0.22, 0.22) * x + rng.uniform(0.0, 0.08) * wave
        bands += (y > border[None]).astype(np.int32)
    return names, bands
