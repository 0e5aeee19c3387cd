"""The canvas that a Visualizer draws on: an array of pixels, drawn on with OpenCV and Pillow.

Coordinates are those of the image: (0, 0) is the top left corner of its first pixel, whose centre
is (0.5, 0.5). The canvas is ``scale`` times as large.
"""

from functools import cached_property
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ._vis_text import Label, draw_labels

__all__ = ["VisImage"]

# Sub-pixel precision of OpenCV's drawing: coordinates are multiples of 1/16 pixel.
SHIFT = 4
DPI = 100  # matplotlib's default, which defines what a font size in points is here


class VisImage:
    """An image that is drawn on.

    Args:
        img: ``[H, W, 3]`` RGB in [0, 255].
        scale: of the canvas relative to the image.

    Attributes:
        img, width, height, scale: as given.
        fig, ax, canvas: a matplotlib figure over the whole image, for scripts that draw with
            matplotlib; made when first used, and laid over everything else.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        self.img = img
        self.scale = scale
        self.height, self.width = img.shape[:2]
        self.labels: list[Label] = []
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Starts again from another picture (of any size; it fills the canvas)."""
        pixels = np.ascontiguousarray(np.clip(img, 0, 255).astype(np.uint8)[..., :3])
        # The same rounding as detectron2's canvas, so that sizes agree.
        size = (int(self.width * self.scale + 1e-2), int(self.height * self.scale + 1e-2))
        if pixels.shape[1::-1] != size:
            shrinks = size[0] < pixels.shape[1]
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            pixels = cv2.resize(pixels, size, interpolation=how)
        self.pixels = pixels

    def get_image(self) -> np.ndarray:
        """The picture: ``[scale * H, scale * W, 3]`` uint8 RGB, labels on top."""
        pixels = self.pixels.copy()
        draw_labels(pixels, self.labels)
        if "fig" in self.__dict__:
            self.canvas.draw()
            layer = np.asarray(self.canvas.buffer_rgba()).astype(np.float32)
            layer = layer[: pixels.shape[0], : pixels.shape[1]]
            target = pixels[: layer.shape[0], : layer.shape[1]]
            alpha = layer[..., 3:] / 255
            target[:] = (target * (1 - alpha) + layer[..., :3] * alpha + 0.5).astype(np.uint8)
        return pixels

    def save(self, filepath: str) -> None:
        """Writes the picture; the ending chooses the format."""
        Image.fromarray(self.get_image()).save(filepath, quality=95)

    # --- matplotlib, on demand ------------------------------------------------------------------

    @cached_property
    def fig(self) -> Any:
        from matplotlib.figure import Figure

        height, width = self.pixels.shape[:2]
        figure = Figure(figsize=((width + 1e-2) / DPI, (height + 1e-2) / DPI), dpi=DPI)
        figure.patch.set_alpha(0)
        return figure

    @cached_property
    def canvas(self) -> Any:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        return FigureCanvasAgg(self.fig)

    @cached_property
    def ax(self) -> Any:
        axes = self.fig.add_axes([0.0, 0.0, 1.0, 1.0])
        axes.axis("off")
        axes.set_xlim(0.0, self.width)
        axes.set_ylim(self.height, 0.0)
        return axes

    # --- drawing --------------------------------------------------------------------------------

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Image coordinates ``[..., 2]`` as OpenCV's fixed-point canvas coordinates."""
        return np.round((np.asarray(xy) * self.scale - 0.5) * (1 << SHIFT)).astype(np.int32)

    def thickness(self, linewidth: float) -> int:
        """Pixels of a line width in points."""
        return max(1, round(linewidth * DPI / 72))

    def lines(
        self, paths: list[np.ndarray], color: tuple, linewidth: float, closed: bool = True
    ) -> None:
        """Draws anti-aliased outlines; paths are ``[N, 2]`` in image coordinates."""
        cv2.polylines(
            self.pixels,
            [self.points(path).reshape(-1, 1, 2) for path in paths],
            closed,
            _bytes(color),
            thickness=self.thickness(linewidth),
            lineType=cv2.LINE_AA,
            shift=SHIFT,
        )

    def circle(self, xy: tuple[float, float], radius: float, color: tuple) -> None:
        """Draws a filled circle."""
        center = tuple(int(v) for v in self.points(np.asarray(xy)))
        size = round(radius * self.scale * (1 << SHIFT))
        cv2.circle(self.pixels, center, size, _bytes(color), -1, cv2.LINE_AA, SHIFT)

    def text(
        self,
        text: str,
        xy: tuple[float, float],
        size: float,
        color: tuple,
        align: str = "center",
        rotation: float = 0.0,
    ) -> None:
        """Adds a label, to be drawn above everything else. ``size`` is in points, unscaled."""
        x, y = xy[0] * self.scale, xy[1] * self.scale
        pixels = size * self.scale * DPI / 72
        self.labels.append(Label(text, x, y, pixels, color, align, rotation))

    def fill(self, paths: list[np.ndarray], color: tuple, alpha: float, even_odd: bool) -> None:
        """Blends a colour into polygons (``[N, 2]`` in image coordinates), edges anti-aliased.

        Args:
            even_odd: paths inside of others are holes; else the union is filled.
        """
        paths = [self.points(path).reshape(-1, 1, 2) for path in paths if len(path)]
        if not paths:
            return
        lows = np.min([p.min(axis=(0, 1)) for p in paths], axis=0) >> SHIFT
        highs = np.max([p.max(axis=(0, 1)) for p in paths], axis=0) >> SHIFT
        height, width = self.pixels.shape[:2]
        x0, y0 = np.maximum(lows - 1, 0).tolist()
        x1, y1 = np.minimum(highs + 3, (width, height)).tolist()
        if x1 <= x0 or y1 <= y0:
            return
        coverage = np.zeros((y1 - y0, x1 - x0), np.uint8)
        paths = [p - np.array([x0, y0], np.int32) * (1 << SHIFT) for p in paths]
        for group in [paths] if even_odd else [[p] for p in paths]:
            cv2.fillPoly(coverage, group, 255, cv2.LINE_AA, SHIFT)
        self.blend(coverage, (x0, y0), color, alpha)

    def blend(self, coverage: np.ndarray, offset: tuple[int, int], color, alpha: float) -> None:
        """Blends a colour into canvas pixels.

        Args:
            coverage: ``[h, w]`` uint8, 255 where the colour counts with the full ``alpha``.
            offset: (x, y) of its top left pixel on the canvas.
        """
        x0, y0 = offset
        target = self.pixels[y0 : y0 + coverage.shape[0], x0 : x0 + coverage.shape[1]]
        coverage = coverage[: target.shape[0], : target.shape[1]]
        # One table per channel instead of arithmetic per pixel.
        old = np.arange(256, dtype=np.float32)[:, None]
        new = np.asarray(color, dtype=np.float32) * 255
        table = np.clip(old * (1 - alpha) + new * alpha + 0.5, 0, 255).astype(np.uint8)
        painted = cv2.LUT(target, table[:, None, :])
        edges = cv2.inRange(coverage, 1, 254)
        if cv2.countNonZero(edges):
            partial = np.nonzero(edges)
            weight = coverage[partial][:, None].astype(np.float32) / 255
            mixed = target[partial] * (1 - weight) + painted[partial] * weight
            painted[partial] = (mixed + 0.5).astype(np.uint8)
        target[:] = cv2.copyTo(painted, coverage, target)


def _bytes(color: tuple) -> tuple[int, int, int]:
    """RGB in [0, 1] as OpenCV wants it."""
    r, g, b = (round(float(v) * 255) for v in color[:3])
    return r, g, b
