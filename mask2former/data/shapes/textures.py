"""One texture per stuff class: recognisable by pattern and, less reliably, by colour.

Every texture has the signature ``(rng, height, width) -> float32 [H, W, 3]``, RGB in 0..255
(values may run a little over; `lighting` clips).
"""

from collections.abc import Callable

import cv2
import numpy as np

from .noise import grain, value_noise

Texture = Callable[[np.random.Generator, int, int], np.ndarray]


def _tint(rng: np.random.Generator, rgb: tuple[int, int, int], spread: float = 14) -> np.ndarray:
    return np.asarray(rgb, np.float32) + rng.uniform(-spread, spread, 3).astype(np.float32)


def _mix(low: np.ndarray, high: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return low + (high - low) * amount[..., None]


def sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A vertical gradient towards a bright horizon, with soft clouds."""
    down = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None].repeat(width, 1)
    air = _mix(_tint(rng, (84, 142, 218)), _tint(rng, (186, 216, 242)), down)
    field = value_noise(rng, height, width, (rng.uniform(3, 6), rng.uniform(2, 4)), octaves=4)
    clouds = np.clip((field - rng.uniform(-0.05, 0.25)) * 3.0, 0.0, 1.0)
    return _mix(air, _tint(rng, (246, 246, 250), 6), 0.8 * clouds)


def grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Short upright blades over lighter and darker patches."""
    blades = value_noise(rng, height, width, (height / 7, width / 1.8))
    patches = value_noise(rng, height, width, (3, 4), octaves=2)
    amount = np.clip(0.45 + 0.5 * blades + 0.35 * patches, 0.0, 1.0)
    return _mix(_tint(rng, (38, 88, 30)), _tint(rng, (134, 186, 70)), amount)


def water(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Horizontal ripples that bend and glint."""
    y = np.arange(height, dtype=np.float32)[:, None]
    bend = value_noise(rng, height, width, (5, 4), octaves=2)
    wave = np.sin(y * (2 * np.pi / rng.uniform(6, 11)) + 6.0 * bend)
    glint = np.clip(wave - 0.55, 0.0, 1.0) * np.clip(0.6 + 1.5 * bend, 0.0, 1.0)
    body = _mix(_tint(rng, (14, 66, 96)), _tint(rng, (40, 132, 150)), 0.5 + 0.5 * wave)
    return _mix(body, np.full(3, 235, np.float32), np.clip(1.6 * glint, 0.0, 1.0))


def sand(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coarse grain on slow dunes."""
    dunes = value_noise(rng, height, width, (4, 2), octaves=2)
    base = _mix(_tint(rng, (196, 164, 112)), _tint(rng, (236, 212, 164)), 0.5 + 0.5 * dunes)
    return base + 11.0 * grain(rng, height, width)[..., None]


def brick(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Running bond: offset rows, one tone a brick, pale mortar."""
    brick_h = int(rng.integers(10, 16))
    brick_w = round(brick_h * rng.uniform(1.9, 2.4))
    y = np.arange(height)[:, None] + int(rng.integers(brick_h))
    x = np.arange(width)[None] + int(rng.integers(brick_w))
    row = y // brick_h
    shifted = x + (row % 2) * (brick_w // 2)
    tones = rng.uniform(-1.0, 1.0, (height // brick_h + 3, width // brick_w + 4))
    tone = tones[row, shifted // brick_w].astype(np.float32)
    body = _tint(rng, (158, 78, 58)) + tone[..., None] * np.float32([26, 18, 14])
    mortar = ((y % brick_h) < 2) | ((shifted % brick_w) < 2)
    body[mortar] = _tint(rng, (202, 192, 178))
    return body + 5.0 * grain(rng, height, width)[..., None]


def wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Upright planks with streaked grain and dark joints."""
    plank = int(rng.integers(18, 30))
    x = np.arange(width) + int(rng.integers(plank))
    tone = rng.uniform(-0.25, 0.25, width // plank + 3)[x // plank].astype(np.float32)
    streaks = value_noise(rng, height, width, (3, width / 2.5), octaves=1)
    amount = np.clip(0.5 + tone[None] + 0.35 * streaks, 0.0, 1.0)
    body = _mix(_tint(rng, (92, 60, 34)), _tint(rng, (190, 146, 96)), amount)
    body[:, (x % plank) < 2] *= 0.45
    return body


TEXTURES: dict[str, Texture] = {
    "sky": sky,
    "grass": grass,
    "water": water,
    "sand": sand,
    "brick": brick,
    "wood": wood,
}


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """One colour; hue in degrees, the others in 0..1; float32 [3] in 0..255."""
    pixel = np.float32([[[hue % 360.0, saturation, value]]])
    return 255.0 * cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
