"""A random street of polygons: what every tiny data set here is drawn from.

One scene gives the photograph and all its annotations, so the files of a data set agree with each
other: bands of stuff, things on top of them that hide one another, a strip nobody labelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

# Cityscapes leaves instances below 100 pixels out of its evaluation.
MIN_VISIBLE = 150


@dataclass(frozen=True)
class Shape:
    """One labelled polygon, painted over those before it.

    Attributes:
        label: index into the class list it was drawn from.
        isthing: whether the label is one of the things.
        polygon: integer corners [N, 2] as x, y.
        crowd: a group of things that nobody told apart.
    """

    label: int
    isthing: bool
    polygon: np.ndarray
    crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """A picture and its shapes in painting order.

    Attributes:
        image: uint8 RGB [H, W, 3].
        shapes: every one visible.
        owner: int [H, W], index of the shape that is seen; -1 where nothing is labelled.
    """

    image: np.ndarray
    shapes: list[Shape]
    owner: np.ndarray

    def mask(self, index: int) -> np.ndarray:
        """Bool [H, W]: where shape ``index`` is seen."""
        return self.owner == index


def draw_scene(
    seed: int | Sequence[int],
    *,
    stuff: int,
    things: int,
    size: tuple[int, int] = (96, 128),
    objects: int = 6,
    crowd: bool = False,
) -> Scene:
    """Draws a scene; the same arguments give the same one.

    Args:
        seed: of ``numpy.random.default_rng``.
        stuff: number of stuff classes; shapes carry labels 0..stuff-1.
        things: number of thing classes; shapes carry labels 0..things-1.
        size: height and width in pixels.
        objects: things tried; the hidden ones are left out.
        crowd: adds a group of things, never hidden.
    """
    rng = np.random.default_rng(seed)
    shapes = _bands(rng, stuff, size) + _things(rng, things, size, objects)
    if crowd:
        height, width = size
        box = _box(2, height // 2, 2 + width // 4, height // 2 + height // 5)
        shapes.append(Shape(int(rng.integers(things)), True, box, crowd=True))
    owner = _paint(shapes, size)
    while hidden := [i for i in range(len(shapes)) if (owner == i).sum() < MIN_VISIBLE]:
        shapes = [s for i, s in enumerate(shapes) if i not in hidden]
        owner = _paint(shapes, size)
    return Scene(_photograph(rng, shapes, owner), shapes, owner)


def _bands(rng: np.random.Generator, classes: int, size: tuple[int, int]) -> list[Shape]:
    """Three bands from top to bottom, of different stuff where there is enough of it."""
    height, width = size
    labels = rng.choice(classes, size=3, replace=classes < 3)
    # The lowest rows stay unlabelled, as the bonnet of the car does in Cityscapes.
    limits = [0, height // 3, 2 * height // 3, height - max(4, height // 16)]
    bands = []
    for label, top, bottom in zip(labels, limits, limits[1:]):
        bend = int(rng.integers(1, height // 8))
        corners = [(0, top), (width - 1, max(top - bend, 0)), (width - 1, bottom), (0, bottom)]
        bands.append(Shape(int(label), False, np.array(corners)))
    return bands


def _things(
    rng: np.random.Generator, classes: int, size: tuple[int, int], count: int
) -> list[Shape]:
    """Boxes and rounded outlines; the first two share a class, so that instances matter."""
    height, width = size
    out = []
    label = int(rng.integers(classes))
    for i in range(count):
        if i >= 2:
            label = int(rng.integers(classes))
        h, w = (int(rng.integers(side // 5, side // 2)) for side in (height, width))
        y, x = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        polygon = _box(x, y, x + w, y + h) if i % 2 else _round(rng, x, y, w, h)
        out.append(Shape(label, True, polygon))
    return out


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _round(rng: np.random.Generator, x: int, y: int, w: int, h: int) -> np.ndarray:
    corners = int(rng.integers(6, 14))
    angles = 2 * np.pi * np.arange(corners) / corners
    radius = rng.uniform(0.8, 1.0, corners)
    xs = x + w / 2 * (1 + radius * np.cos(angles))
    ys = y + h / 2 * (1 + radius * np.sin(angles))
    return np.stack([xs, ys], 1).round().astype(int)


def _paint(shapes: list[Shape], size: tuple[int, int]) -> np.ndarray:
    """Paints as cityscapesscripts does, with PIL: outlines belong to the polygon."""
    canvas = Image.new("I", size[::-1], -1)
    draw = ImageDraw.Draw(canvas)
    for i, shape in enumerate(shapes):
        draw.polygon([tuple(map(int, xy)) for xy in shape.polygon], fill=i)
    return np.asarray(canvas).astype(int)


def _photograph(rng: np.random.Generator, shapes: list[Shape], owner: np.ndarray) -> np.ndarray:
    """Colours by class, with noise."""
    colours = np.zeros((len(shapes) + 1, 3))  # the last row is for -1
    for i, shape in enumerate(shapes):
        own = np.random.default_rng([shape.label, int(shape.isthing)])
        colours[i] = own.uniform(30, 225, 3) + rng.normal(0, 6, 3)
    noisy = colours[owner] + rng.normal(0, 8, (*owner.shape, 3))
    return noisy.clip(0, 255).astype(np.uint8)
