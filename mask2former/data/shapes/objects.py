"""Draws one thing: antialiased cover, shaded body, rim and a soft shadow."""

from dataclasses import dataclass

import cv2
import numpy as np

from .outlines import place_outline
from .textures import hsv_to_rgb

_SUBPIXEL_BITS = 4
# Preferred hue of a class in degrees, so that minutes of training are enough to tell most objects
# apart; for the rest (`_SURPRISE`) shape decides.
_HUES = {"circle": 2, "square": 218, "triangle": 105, "star": 52, "ring": 285, "cross": 162}
_HUE_SPREAD = 13.0
_SURPRISE = 0.05  # share of objects whose hue is drawn from the whole circle


@dataclass(frozen=True)
class Thing:
    """One object before it is drawn.

    Attributes:
        name: class name, a key of `outlines.OUTLINES`.
        centre: (x, y) in pixels.
        radius: circumradius in pixels.
        cover: uint8 [h, w], 0..255, how much of a pixel the object covers, inside `box`.
        box: (x0, y0, x1, y1), the part of the image `cover` spans; x1, y1 exclusive.
        full_area: covered pixels before the image border cut it.
    """

    name: str
    centre: tuple[float, float]
    radius: float
    cover: np.ndarray
    box: tuple[int, int, int, int]
    full_area: float

    @property
    def mask(self) -> np.ndarray:
        """bool [h, w]: pixels that belong to the object (at least half covered)."""
        return self.cover >= 128


def make_thing(
    rng: np.random.Generator,
    name: str,
    centre: tuple[float, float],
    radius: float,
    height: int,
    width: int,
) -> Thing | None:
    """Rasterises an object with random rotation and stretch; None if it misses the image."""
    contours = place_outline(
        name, centre, radius, rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.18, 0.18))
    )
    outer = contours[0]
    x0, y0 = np.maximum(np.floor(outer.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(outer.max(0)).astype(int) + 2, [width, height])
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fixed = [np.round((c - [x0, y0]) * 2**_SUBPIXEL_BITS).astype(np.int32) for c in contours]
    cv2.fillPoly(cover, fixed, 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    areas = [cv2.contourArea(c.astype(np.float32)) for c in contours]
    full_area = areas[0] - sum(areas[1:])
    return Thing(name, centre, radius, cover, (int(x0), int(y0), int(x1), int(y1)), full_area)


def _body_colour(rng: np.random.Generator, name: str) -> np.ndarray:
    surprised = rng.random() < _SURPRISE
    hue = rng.uniform(0, 360) if surprised else rng.normal(_HUES[name], _HUE_SPREAD)
    return hsv_to_rgb(hue, rng.uniform(0.55, 0.95), rng.uniform(0.65, 1.0))


def _pattern(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A brightness factor [h, w] over body coordinates (radius 1): plain, striped or dotted."""
    kind = rng.choice(["plain", "stripes", "dots"], p=[0.6, 0.2, 0.2])
    if kind == "plain":
        return np.ones_like(u)
    angle = rng.uniform(0, np.pi)
    along = u * np.cos(angle) + v * np.sin(angle)
    across = v * np.cos(angle) - u * np.sin(angle)
    frequency = rng.uniform(7, 12)
    wave = np.sin(along * frequency)
    if kind == "dots":
        wave = wave * np.sin(across * frequency)
    return 1.0 - 0.28 * np.clip(4.0 * wave, 0.0, 1.0)


def draw_shadow(canvas: np.ndarray, thing: Thing, light: tuple[float, float]) -> None:
    """Darkens what lies behind the object, away from the light, in place (RGB float32)."""
    height, width = canvas.shape[:2]
    reach = max(2, round(0.14 * thing.radius))
    x0, y0 = thing.box[:2]
    dx, dy = round(-light[0] * reach), round(-light[1] * reach)
    pad = 2 * reach
    cover = cv2.copyMakeBorder(thing.cover, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    soft = cv2.GaussianBlur(cover, (0, 0), 0.6 * reach).astype(np.float32) / 255.0
    left, top = x0 - pad + dx, y0 - pad + dy
    cut_x, cut_y = max(0, -left), max(0, -top)
    end_x = min(soft.shape[1], width - left)
    end_y = min(soft.shape[0], height - top)
    part = soft[cut_y:end_y, cut_x:end_x, None]
    canvas[top + cut_y : top + end_y, left + cut_x : left + end_x] *= 1.0 - 0.45 * part


def draw_thing(
    rng: np.random.Generator, canvas: np.ndarray, thing: Thing, light: tuple[float, float]
) -> None:
    """Blends the shaded object over the canvas, in place.

    Args:
        rng: draws colour and pattern.
        canvas: float32 [H, W, 3], RGB, 0..255.
        thing: what to draw.
        light: unit vector (x, y) towards the light.
    """
    x0, y0, x1, y1 = thing.box
    u = (np.arange(x0, x1, dtype=np.float32)[None] - thing.centre[0]) / thing.radius
    v = (np.arange(y0, y1, dtype=np.float32)[:, None] - thing.centre[1]) / thing.radius
    u, v = np.broadcast_arrays(u, v)
    facing = u * light[0] + v * light[1]
    shade = (0.92 + 0.22 * facing) * _pattern(rng, u, v)
    body = _body_colour(rng, thing.name) * shade[..., None]
    glow = np.exp(-((u - 0.45 * light[0]) ** 2 + (v - 0.45 * light[1]) ** 2) / 0.09)
    body += (70.0 * rng.uniform(0.2, 1.0) * glow)[..., None]
    rim_width = 2 * max(1, round(0.05 * thing.radius)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim_width, rim_width))
    inner = cv2.erode(thing.cover, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=255)
    body *= (0.55 + 0.45 * inner.astype(np.float32) / 255.0)[..., None]
    alpha = (thing.cover.astype(np.float32) / 255.0)[..., None]
    region = canvas[y0:y1, x0:x1]
    region += (body - region) * alpha
