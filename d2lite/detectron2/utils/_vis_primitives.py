"""The simple shapes of a Visualizer, and the conversion of what it is given."""

import itertools

import cv2
import numpy as np
import torch

from detectron2.structures import BitMasks, Boxes, Keypoints, PolygonMasks
from detectron2.utils.file_io import PathManager

from ._vis_colors import change_brightness, readable_on_black, to_rgb
from ._vis_image import VisImage
from ._vis_masks import GenericMask

__all__ = ["Primitives"]

_RED = (1.0, 0.0, 0.0)


class Primitives:
    """Lines, boxes, circles, polygons, text: mixed into :class:`~.visualizer.Visualizer`."""

    img: np.ndarray
    output: VisImage
    keypoint_threshold: float
    _default_font_size: float

    def draw_text(
        self,
        text: str,
        position: tuple[float, float],
        *,
        font_size: float | None = None,
        color="g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Writes text on a dark box; ``position`` (x, y) is its upper edge."""
        size = self._default_font_size if font_size is None else font_size
        color = readable_on_black(color)
        self.output.text(text, position, size, color, horizontal_alignment, rotation)
        return self.output

    def draw_box(
        self, box_coord, alpha: float = 0.5, edge_color="g", line_style: str = "-"
    ) -> VisImage:
        """Draws the outline of an XYXY box."""
        x0, y0, x1, y1 = (float(v) for v in box_coord)
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        width = max(self._default_font_size / 4, 1) / 2
        return self._stroke(corners, edge_color, width, alpha, line_style, closed=True)

    def draw_line(
        self, x_data, y_data, color, linestyle: str = "-", linewidth: float | None = None
    ) -> VisImage:
        """Draws a line through points; the width is in points, before scaling."""
        width = self._default_font_size / 3 if linewidth is None else linewidth
        width = max(width, 1) * self.output.scale
        points = np.stack([np.asarray(x_data, float), np.asarray(y_data, float)], axis=1)
        self.output.lines(_dashes(points, linestyle), to_rgb(color), width, closed=False)
        return self.output

    def draw_circle(self, circle_coord, color, radius: float = 3) -> VisImage:
        """Draws a filled circle, the radius in pixels of the image."""
        self.output.circle(tuple(float(v) for v in circle_coord), radius, to_rgb(color))
        return self.output

    def draw_polygon(self, segment, color, edge_color=None, alpha: float = 0.5) -> VisImage:
        """Draws a filled ``[N, 2]`` polygon and its outline."""
        points = np.asarray(segment, dtype=float).reshape(-1, 2)
        color = to_rgb(color)
        self.output.fill([points], color, alpha, even_odd=False)
        edge = self._edge_color(color, edge_color, alpha)
        self.output.lines([points], edge, self._line_width())
        return self.output

    def draw_soft_mask(
        self, soft_mask, color=None, *, text: str | None = None, alpha: float = 0.5
    ) -> VisImage:
        """Draws an ``[H, W]`` mask of values in [0, 1] as varying opacity."""
        color = self._random_color() if color is None else to_rgb(color)
        mask = np.asarray(soft_mask, dtype=np.float32)
        size = self.output.pixels.shape[1::-1]
        weight = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
        coverage = (weight.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        self.output.blend(coverage, (0, 0), color, alpha)
        if text is not None:
            self._draw_text_in_mask(mask > 0.5, text, change_brightness(color, 0.7))
        return self.output

    def draw_and_connect_keypoints(self, keypoints) -> VisImage:
        """Draws ``[K, 3]`` keypoints (x, y, score) and the lines that the metadata names.

        Points below ``keypoint_threshold`` are left out. A person's nose and hips are joined to
        the middle of the shoulders.
        """
        names = self.metadata.get("keypoint_names")
        visible = {}
        for index, (x, y, score) in enumerate(np.asarray(keypoints, dtype=float)):
            if score > self.keypoint_threshold:
                self.draw_circle((x, y), _RED)
                if names:
                    visible[names[index]] = (x, y)
        for first, second, color in self.metadata.get("keypoint_connection_rules") or []:
            if first in visible and second in visible:
                (x0, y0), (x1, y1) = visible[first], visible[second]
                self.draw_line([x0, x1], [y0, y1], color=[v / 255 for v in color])

        def middle(part: str) -> np.ndarray | None:
            pair = [visible.get(f"{side}_{part}") for side in ("left", "right")]
            return None if None in pair else np.mean(pair, axis=0)

        shoulders, hips = middle("shoulder"), middle("hip")
        for other in (visible.get("nose"), hips):
            if shoulders is not None and other is not None:
                self.draw_line([shoulders[0], other[0]], [shoulders[1], other[1]], color=_RED)
        return self.output

    # --- helpers ------------------------------------------------------------------------------

    def _stroke(
        self, points: np.ndarray, color, width: float, alpha: float, style: str, closed: bool
    ) -> VisImage:
        """An outline of given opacity."""
        pixels, width = self.output.pixels, width * self.output.scale
        # Only where the line can be: a copy of the whole canvas per box would be slow.
        margin = self.output.thickness(width) + 2
        x0, y0 = np.maximum(points.min(axis=0) * self.output.scale - margin, 0).astype(int)
        x1, y1 = np.maximum(points.max(axis=0) * self.output.scale + margin, 0).astype(int)
        target = pixels[y0:y1, x0:x1]
        before = target.copy()
        if style == "-":
            self.output.lines([points], to_rgb(color), width, closed)
        else:
            ring = np.concatenate([points, points[:1]]) if closed else points
            self.output.lines(_dashes(ring, style), to_rgb(color), width, closed=False)
        if alpha < 1 and target.size:
            target[:] = cv2.addWeighted(target, alpha, before, 1 - alpha, 0)
        return self.output

    def _line_width(self) -> float:
        """Of outlines, in points on the canvas."""
        return max(self._default_font_size // 15 * self.output.scale, 1)

    def _edge_color(self, color: tuple, edge_color, alpha: float) -> tuple:
        """What an outline is drawn with: a strong filling needs a darker edge to be seen."""
        if edge_color is not None:
            return to_rgb(edge_color)
        return change_brightness(color, -0.7) if alpha > 0.8 else color

    def _change_color_brightness(self, color, brightness_factor: float) -> tuple:
        return change_brightness(color, brightness_factor)

    def _create_grayscale_image(self, mask: np.ndarray | None = None) -> np.ndarray:
        """The image in grey, in colour where ``mask`` (``[H, W]``) is set."""
        grey = np.repeat(self.img.astype("f4").mean(axis=2)[..., None], 3, axis=2)
        if mask is not None:
            mask = np.asarray(mask, dtype=bool)
            grey[mask] = self.img[mask]
        return grey

    def _convert_boxes(self, boxes) -> np.ndarray:
        """``[N, 4]`` (or whatever width) as an array on the host."""
        if isinstance(boxes, Boxes):
            boxes = boxes.tensor
        if isinstance(boxes, torch.Tensor):
            return boxes.detach().cpu().numpy()
        return np.asarray(boxes, dtype=float).reshape(len(boxes), -1)

    def _convert_masks(self, masks_or_polygons) -> list[GenericMask]:
        """Any masks as GenericMasks."""
        masks = masks_or_polygons
        if isinstance(masks, PolygonMasks):
            masks = masks.polygons
        elif isinstance(masks, BitMasks):
            masks = masks.tensor
        if isinstance(masks, torch.Tensor):
            masks = masks.detach().cpu().numpy()
        height, width = self.output.height, self.output.width
        return [
            m if isinstance(m, GenericMask) else GenericMask(_host(m), height, width) for m in masks
        ]

    def _convert_keypoints(self, keypoints) -> np.ndarray:
        """``[N, K, 3]`` on the host."""
        if isinstance(keypoints, Keypoints):
            keypoints = keypoints.tensor
        if isinstance(keypoints, torch.Tensor):
            keypoints = keypoints.detach().cpu().numpy()
        return np.asarray(keypoints)

    @staticmethod
    def _read(path: str) -> np.ndarray:
        """An image file as an array."""
        from PIL import Image

        with PathManager.open(path, "rb") as f:
            return np.asarray(Image.open(f))


def _host(mask):
    """A mask that is a tensor, as an array; anything else as it is."""
    return mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else mask


def _dashes(points: np.ndarray, style: str) -> list[np.ndarray]:
    """Cuts a path into dashes ("--", "-.") or dots (":"), in pixels of the image; "-" keeps it."""
    if style == "-":
        return [points]
    on, off = {":": (1.0, 4.0)}.get(style, (8.0, 6.0))
    pieces = []
    for start, end in itertools.pairwise(points):
        length = float(np.linalg.norm(end - start))
        if length == 0:
            continue
        step = (end - start) / length
        for begin in np.arange(0.0, length, on + off):
            stop = min(begin + on, length)
            pieces.append(np.stack([start + step * begin, start + step * stop]))
    return pieces
