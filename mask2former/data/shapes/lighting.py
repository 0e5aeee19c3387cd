"""What light and camera do to a finished scene."""

import numpy as np

from .noise import value_noise


def light_direction(rng: np.random.Generator) -> tuple[float, float]:
    """A unit vector (x, y) towards the light, from somewhere above."""
    angle = rng.uniform(-0.85 * np.pi, -0.15 * np.pi)
    return float(np.cos(angle)), float(np.sin(angle))


def expose(rng: np.random.Generator, canvas: np.ndarray, light: tuple[float, float]) -> np.ndarray:
    """Applies a light gradient, drifting shade, colour temperature, exposure and sensor noise.

    Args:
        rng: source of randomness.
        canvas: float32 [H, W, 3], RGB, about 0..255; changed in place.
        light: unit vector (x, y) towards the light.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    height, width = canvas.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    gradient = 1.0 + rng.uniform(0.0, 0.28) * (x * light[0] + y * light[1])
    shade = 1.0 + rng.uniform(0.0, 0.18) * value_noise(rng, height, width, (2, 2))
    warmth = rng.uniform(-0.08, 0.08)
    gain = np.float32([1 + warmth, 1, 1 - warmth]) * np.float32(np.exp(rng.uniform(-0.4, 0.22)))
    canvas *= (gradient * shade)[..., None] * gain
    canvas += rng.uniform(1.0, 6.0) * rng.standard_normal(canvas.shape, np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
