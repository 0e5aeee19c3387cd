"""Smooth random fields, the raw material of textures and light."""

import cv2
import numpy as np


def value_noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[float, float], octaves: int = 1
) -> np.ndarray:
    """Sums cubic interpolations of random grids, each twice as fine and half as strong.

    Args:
        rng: source of randomness.
        height, width: size of the field in pixels.
        cells: grid cells along (y, x) of the coarsest octave; few cells make large patches.
        octaves: number of grids.

    Returns:
        float32 [H, W], roughly within [-1, 1].
    """
    field = np.zeros((height, width), np.float32)
    amplitude, total = 1.0, 0.0
    for octave in range(octaves):
        rows, cols = (max(2, round(c * 2**octave) + 1) for c in cells)
        grid = rng.uniform(-1.0, 1.0, (rows, cols)).astype(np.float32)
        field += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        total += amplitude
        amplitude *= 0.5
    return field / total


def grain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """White Gaussian noise of unit variance, float32 [H, W]."""
    return rng.standard_normal((height, width), np.float32)
