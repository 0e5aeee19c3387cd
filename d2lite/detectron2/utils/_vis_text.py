"""Text on a dark box, drawn with Pillow; placed so that it stays inside the image."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Label", "draw_labels"]

BOX_ALPHA = 0.8


@dataclass(frozen=True)
class Label:
    """A piece of text.

    Attributes:
        x, y: anchor, in pixels of the canvas: the text's top edge, and its left edge, middle or
            right edge as ``align`` says.
        size: height of the font, in pixels.
        color: RGB in [0, 1].
        rotation: degrees, counter-clockwise.
    """

    text: str
    x: float
    y: float
    size: float
    color: tuple[float, float, float]
    align: str = "center"
    rotation: float = 0.0


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans (many scripts) where matplotlib brings it, else Pillow's own font."""
    spec = find_spec("matplotlib")  # found, not imported
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


@lru_cache(maxsize=512)
def _stencil(text: str, size: int, rotation: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of the box and of the text inside it, both uint8 of one size."""
    font = _font(size)
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = probe.multiline_textbbox((0, 0), text, font=font)
    pad = max(1, round(size * 0.15))
    # Equal heights for equal sizes: rows of labels look calmer than tight boxes.
    ascent, descent = font.getmetrics()
    height = max(ascent + descent, int(bottom - min(top, 0)))
    image = Image.new("L", (int(right - left) + 2 * pad, int(height) + pad))
    ImageDraw.Draw(image).multiline_text((pad - left, pad // 2), text, fill=255, font=font)
    box = Image.new("L", image.size, 255)
    if rotation:
        turn = {"resample": Image.Resampling.BICUBIC, "expand": True}
        image, box = image.rotate(rotation, **turn), box.rotate(rotation, **turn)
    return np.asarray(box), np.asarray(image)


def _overlaps(box: tuple[int, int, int, int], others: list[tuple[int, int, int, int]]) -> bool:
    x0, y0, x1, y1 = box
    return any(x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in others)


def draw_labels(pixels: np.ndarray, labels: list[Label]) -> None:
    """Draws labels in place, the first ones at their place, later ones moved where they collide.

    Args:
        pixels: ``[H, W, 3]`` uint8.
    """
    height, width = pixels.shape[:2]
    taken: list[tuple[int, int, int, int]] = []
    for label in labels:
        box, text = _stencil(label.text, max(1, round(label.size)), label.rotation)
        h, w = box.shape
        share = {"left": 0.0, "center": 0.5, "right": 1.0}.get(label.align, 0.5)
        left = min(max(0, round(label.x - share * w)), max(0, width - w))
        for lines in (0, 1, -1, 2, -2):
            top = min(max(0, round(label.y) + lines * h), max(0, height - h))
            place = (left, top, left + w, top + h)
            if not _overlaps(place, taken):
                break
        else:  # crowded: where it belongs
            top = min(max(0, round(label.y)), max(0, height - h))
            place = (left, top, left + w, top + h)
        taken.append(place)

        target = pixels[top : top + h, left : left + w]
        box, text = (
            box[: target.shape[0], : target.shape[1]],
            text[: target.shape[0], : target.shape[1]],
        )
        shade = 1 - BOX_ALPHA * box[..., None].astype(np.float32) / 255
        ink = text[..., None].astype(np.float32) / 255
        color = np.asarray(label.color, dtype=np.float32) * 255
        target[:] = (target * shade * (1 - ink) + color * ink + 0.5).astype(np.uint8)
