"""Masks with outline and label, labels of boxes, and the colours of classes."""

import numpy as np

from detectron2.utils.colormap import colormap

from ._vis_colors import change_brightness, jitter, to_rgb
from ._vis_image import VisImage
from ._vis_masks import Region, crop_to_content, label_anchor
from ._vis_primitives import Primitives

__all__ = ["Regions"]

SMALL_OBJECT_AREA = 1000  # pixels; labels of smaller objects are written beside them


class Regions(Primitives):
    """What a Visualizer needs to draw one segment: mixed into :class:`~.visualizer.Visualizer`."""

    _rng: np.random.Generator

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color=None,
        *,
        edge_color=None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: int = 10,
    ) -> VisImage:
        """Draws one ``[H, W]`` mask, its outline and a label inside it.

        Args:
            color: default: a random one.
            edge_color: default: the same, darker on strong fillings.
            area_threshold: smaller masks are not drawn.
        """
        color = self._random_color() if color is None else to_rgb(color)
        region = crop_to_content(binary_mask)
        return self._draw_region(
            region,
            color,
            edge_color=edge_color,
            text=text,
            alpha=alpha,
            area_threshold=area_threshold,
        )

    def _draw_region(
        self,
        region: Region | None,
        color: tuple,
        *,
        edge_color=None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: int | None = None,
    ) -> VisImage:
        """Fills a region, draws its outlines and labels it."""
        if region is None or region.area < (area_threshold or 0):
            return self.output
        contours = region.contours()
        if self.output.scale == 1:
            self.output.blend(region.mask * np.uint8(255), (region.x, region.y), color, alpha)
        else:  # outlines scale better than pixels
            self.output.fill(contours, color, alpha, even_odd=True)
        edge = self._edge_color(color, edge_color, alpha)
        self.output.lines([c for c in contours if len(c) >= 3], edge, self._line_width())
        if text is not None:
            self._draw_text_in_mask(region, text, change_brightness(color, 0.7))
        return self.output

    def _draw_text_in_mask(self, region: Region | np.ndarray, text: str, color) -> None:
        """Writes a label inside a mask (a region, or ``[H, W]``)."""
        if isinstance(region, np.ndarray):
            region = crop_to_content(region)
        if region is None:
            return
        size = self._default_font_size
        for x, y in label_anchor(region):
            # The anchor is a text's upper edge: lift it by half a line.
            y -= 0.6 * size * 100 / 72
            self.draw_text(text, (x, y), font_size=size, color=color)

    def _label_box(self, text: str, box: np.ndarray, color: tuple) -> None:
        """Writes a label at a box: in its corner, or beside it when it is small."""
        x0, y0, x1, y1 = (float(v) for v in box)
        height, width = self.output.height, self.output.width
        position = (x0, y0)
        small = (x1 - x0) * (y1 - y0) < SMALL_OBJECT_AREA * self.output.scale
        if small or y1 - y0 < 40 * self.output.scale:
            position = (x1, y0) if y1 >= height - 5 else (x0, y1)
        # Relative height 0.02 and less gives the smallest font, 0.1 and more the largest.
        share = (y1 - y0) / np.sqrt(height * width)
        size = np.clip((share - 0.02) / 0.08 + 1, 1.2, 2) * 0.5 * self._default_font_size
        self.draw_text(
            text,
            position,
            font_size=size,
            color=change_brightness(color, 0.7),
            horizontal_alignment="left",
        )

    def _class_color(self, key: str, category: int, jittered: bool = False) -> tuple:
        """The metadata's colour of a class; a random one where it has none."""
        colors = self.metadata.get(key)
        if not colors or category >= len(colors):
            return self._random_color()
        color = to_rgb([x / 255 for x in colors[category]])
        return self._jitter(color) if jittered else color

    def _random_color(self) -> tuple:
        palette = colormap(rgb=True, maximum=1)
        return to_rgb(palette[self._rng.integers(len(palette))])

    def _jitter(self, color) -> tuple:
        """A colour near to another, for one more object of its class."""
        return jitter(color, self._rng)
