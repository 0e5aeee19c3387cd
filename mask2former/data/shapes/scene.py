"""Composes one picture and its exact panoptic ground truth."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from .layout import stuff_bands
from .lighting import expose, light_direction
from .noise import value_noise
from .objects import Thing, draw_shadow, draw_thing, make_thing
from .outlines import OUTLINES
from .textures import TEXTURES

_MIN_VISIBLE = 0.45  # share of an object that must stay in sight
_MIN_STUFF_SHARE = 0.004  # smaller stuff remnants become void


@dataclass(frozen=True)
class SceneSpec:
    """What a picture may look like. Lengths are shares of the picture's shorter side.

    Attributes:
        min_side, max_side: range of either side in pixels.
        max_things: most objects in a picture (at least one).
        min_radius, max_radius: range of an object's circumradius. The smallest is 26 pixels
            across when the shorter side is 128.
        crowd_share, void_share: share of pictures with a crowd region, with an unlabelled one.
    """

    min_side: int = 144
    max_side: int = 256
    max_things: int = 6
    min_radius: float = 0.1
    max_radius: float = 0.27
    crowd_share: float = 0.03
    void_share: float = 0.04


@dataclass(frozen=True)
class Segment:
    """One panoptic segment: its value in `Scene.segment_map`, class name and crowd flag."""

    index: int
    name: str
    is_thing: bool
    is_crowd: bool = False


@dataclass
class Scene:
    """A picture with its ground truth.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        segment_map: int32 [H, W]; 0 is void, other values are `Segment.index`.
        segments: the segments that own at least one pixel.
    """

    image: np.ndarray
    segment_map: np.ndarray
    segments: list[Segment] = field(default_factory=list)


def make_scene(rng: np.random.Generator, spec: SceneSpec | None = None) -> Scene:
    """Draws a picture: stuff, then crowd, void and things back to front, then light.

    Args:
        rng: the only source of randomness, so equal generators give equal pictures.
        spec: limits; the defaults are those of the published set.
    """
    spec = spec or SceneSpec()
    height, width = (int(v) for v in rng.integers(spec.min_side, spec.max_side + 1, 2))
    light = light_direction(rng)
    names, bands = stuff_bands(rng, height, width)
    canvas = np.empty((height, width, 3), np.float32)
    for band, name in enumerate(names):
        inside = bands == band
        canvas[inside] = TEXTURES[name](rng, height, width)[inside]
    segment_map = bands + 1
    segments = [Segment(i + 1, name, is_thing=False) for i, name in enumerate(names)]

    if rng.random() < spec.void_share:
        _paint_void(rng, canvas, segment_map)
    if rng.random() < spec.crowd_share:
        segments.append(_paint_crowd(rng, canvas, segment_map, len(segments) + 1, light))
    for thing in _place_things(rng, spec, height, width):
        draw_shadow(canvas, thing, light)
        draw_thing(rng, canvas, thing, light)
        segments.append(Segment(len(segments) + 1, thing.name, is_thing=True))
        _own(segment_map, thing, segments[-1].index)

    counts = np.bincount(segment_map.ravel(), minlength=len(segments) + 1)
    kept = []
    for segment in segments:
        least = 1 if segment.is_thing else _MIN_STUFF_SHARE * height * width
        if counts[segment.index] >= least:
            kept.append(segment)
        else:
            segment_map[segment_map == segment.index] = 0
    return Scene(expose(rng, canvas, light), segment_map, kept)


def _own(segment_map: np.ndarray, thing: Thing, index: int) -> None:
    x0, y0, x1, y1 = thing.box
    segment_map[y0:y1, x0:x1][thing.mask] = index


def _place_things(
    rng: np.random.Generator, spec: SceneSpec, height: int, width: int
) -> list[Thing]:
    """Chooses objects back to front so that each stays visible; large ones tend to lie behind."""
    short = min(height, width)
    count = int(rng.integers(1, spec.max_things + 1))
    # Log-uniform, so that small objects are as common as large ones; crowded pictures hold
    # smaller ones.
    largest = max(spec.max_radius * max(1.0 - 0.06 * (count - 1), 0.4), spec.min_radius)
    radii = np.exp(rng.uniform(np.log(spec.min_radius), np.log(largest), count)) * short
    owner = np.full((height, width), -1, np.int32)
    placed: list[Thing] = []
    areas: list[int] = []
    for radius in np.sort(radii)[::-1]:
        for _ in range(8):
            centre = (rng.uniform(0, width), rng.uniform(0, height))
            name = str(rng.choice(list(OUTLINES)))
            thing = make_thing(rng, name, centre, float(radius), height, width)
            if thing is None or thing.mask.sum() < 0.7 * thing.full_area:
                continue
            x0, y0, x1, y1 = thing.box
            hidden = np.bincount(owner[y0:y1, x0:x1][thing.mask] + 1, minlength=len(placed) + 1)[1:]
            visible = np.bincount(owner.ravel() + 1, minlength=len(placed) + 1)[1:] - hidden
            if any(v < _MIN_VISIBLE * a for v, a in zip(visible, areas)):
                continue
            _own(owner, thing, len(placed))
            placed.append(thing)
            areas.append(int(thing.mask.sum()))
            break
    return placed


def _paint_crowd(
    rng: np.random.Generator,
    canvas: np.ndarray,
    segment_map: np.ndarray,
    index: int,
    light: tuple[float, float],
) -> Segment:
    """A swarm of one class, too dense to tell apart: one segment flagged as crowd."""
    height, width = segment_map.shape
    short = min(height, width)
    name = str(rng.choice(list(OUTLINES)))
    middle = rng.uniform(0.25, 0.75, 2) * [width, height]
    for _ in range(int(rng.integers(14, 24))):
        centre = tuple(rng.normal(middle, 0.1 * short))
        thing = make_thing(rng, name, centre, rng.uniform(0.035, 0.055) * short, height, width)
        if thing is not None:
            draw_thing(rng, canvas, thing, light)
            _own(segment_map, thing, index)
    return Segment(index, name, is_thing=True, is_crowd=True)


def _paint_void(rng: np.random.Generator, canvas: np.ndarray, segment_map: np.ndarray) -> None:
    """A hazy patch nobody labelled: id 0."""
    height, width = segment_map.shape
    patch = np.zeros((height, width), np.uint8)
    centre = tuple(int(v) for v in rng.uniform(0.15, 0.85, 2) * [width, height])
    axes = tuple(int(v) for v in rng.uniform(0.1, 0.2, 2) * min(height, width))
    cv2.ellipse(patch, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    haze = 150.0 + 40.0 * value_noise(rng, height, width, (8, 8), octaves=2)
    alpha = (cv2.GaussianBlur(patch, (0, 0), 2.0).astype(np.float32) / 255.0)[..., None]
    canvas += 0.85 * alpha * (haze[..., None] - canvas)
    segment_map[patch >= 128] = 0
