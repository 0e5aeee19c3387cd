"""Transforms that detectron2 adds to fvcore's: resize, crop with scaling, rotation, colour."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
)
from PIL import Image

from detectron2._missing import missing_getattr

__all__ = [
    "ColorTransform",
    "ExtentTransform",
    "PILColorTransform",
    "ResizeTransform",
    "RotationTransform",
]

_TORCH_MODE = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}
# Up to this height + width torch resizes planes by a kernel that computes nearest neighbours in
# float32, above it by one that computes in the input's type (ATen/native/cpu/UpSampleKernel.cpp).
_SMALL_OUTPUT = 128


class ResizeTransform(Transform):
    """Resize to a fixed size.

    uint8 images go through Pillow (antialiased; nearest takes pixel centres), all others through
    torch's rules (not antialiased; nearest rounds the source position down). Label maps of 8 and
    of more bits can thus differ by a pixel at edges, as in detectron2.

    Args:
        h, w: size of the input, which is checked.
        new_h, new_w: size of the output.
        interp: a PIL resampling method; default bilinear.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        interp = Image.Resampling.BILINEAR if interp is None else interp
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize [H, W], [H, W, C] (or [H, W, C, D] unless uint8); ``interp`` overrides ours.

        Raises:
            AssertionError: the input is not h x w.
        """
        if img.shape[:2] != (self.h, self.w) or img.ndim > 4:
            raise AssertionError(
                f"ResizeTransform is for {self.h}x{self.w} images, got shape {img.shape}"
            )
        method = Image.Resampling(self.interp if interp is None else interp)
        if (self.new_h, self.new_w) == (self.h, self.w):
            return img
        if img.dtype == np.uint8:
            return self._resize_uint8(img, method)
        if method == Image.Resampling.NEAREST:
            return self._resize_nearest(img)
        return self._resize_float(img, method)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize labels [H, W] or [H, W, C] of any type by nearest neighbour."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale float coordinates [N, 2] (x, y), in place."""
        coords[:, 0] = coords[:, 0] * (self.new_w * 1.0 / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h * 1.0 / self.h)
        return coords

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)

    def _resize_uint8(self, img: np.ndarray, method: Image.Resampling) -> np.ndarray:
        single = img.ndim == 3 and img.shape[2] == 1
        pil = Image.fromarray(img[:, :, 0] if single else img)
        resized = np.asarray(pil.resize((self.new_w, self.new_h), method))
        return resized[:, :, None] if single else resized

    def _resize_nearest(self, img: np.ndarray) -> np.ndarray:
        """torch's nearest rule, for every dtype: pick rows and columns."""
        small = self.new_h + self.new_w <= _SMALL_OUTPUT
        rows = _nearest_sources(self.h, self.new_h, img.dtype, small)
        columns = _nearest_sources(self.w, self.new_w, img.dtype, small)
        return img.take(rows, axis=0).take(columns, axis=1)

    def _resize_float(self, img: np.ndarray, method: Image.Resampling) -> np.ndarray:
        if method not in _TORCH_MODE:
            raise ValueError(
                f"Only {', '.join(m.name for m in _TORCH_MODE)} can resize {img.dtype} images, "
                f"not {method.name}"
            )
        trailing = img.shape[2:]
        # [H, W, ...] -> [1, C, H, W]; from_numpy takes no negative strides (flipped images).
        tensor = torch.from_numpy(np.ascontiguousarray(img)).reshape(self.h, self.w, -1)
        tensor = tensor.permute(2, 0, 1)[None]
        tensor = F.interpolate(
            tensor, (self.new_h, self.new_w), mode=_TORCH_MODE[method], align_corners=False
        )
        return tensor[0].permute(1, 2, 0).reshape(self.new_h, self.new_w, *trailing).numpy()


def _nearest_sources(size: int, new_size: int, dtype: np.dtype, small: bool) -> np.ndarray:
    """Source index of each of ``new_size`` pixels, int64, by torch's own arithmetic.

    ``small``: as its 2-D kernel for small outputs computes them, else as the general one, which is
    also that of one dimension.
    """
    in_float32 = dtype == np.float32
    positions = torch.arange(size, dtype=torch.float32 if in_float32 else torch.float64)
    if small:
        plane = F.interpolate(positions[None, None, None], (1, new_size), mode="nearest")
        return plane[0, 0, 0].long().numpy()
    return F.interpolate(positions[None, None], new_size, mode="nearest")[0, 0].long().numpy()


class ExtentTransform(Transform):
    """Cut a rectangle out of the image and scale it; outside the image is ``fill``.

    Args:
        src_rect: (x0, y0, x1, y1) in pixels, may reach outside the image.
        output_size: (h, w).
        interp: a PIL resampling method; default bilinear.
        fill: value of pixels outside the image.
    """

    def __init__(
        self,
        src_rect: tuple[float, float, float, float],
        output_size: tuple[int, int],
        interp: int = Image.Resampling.BILINEAR,
        fill: int = 0,
    ) -> None:
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        h, w = self.output_size
        single = img.ndim == 3 and img.shape[2] == 1
        result = Image.fromarray(img[:, :, 0] if single else img).transform(
            size=(w, h),
            method=Image.Transform.EXTENT,
            data=self.src_rect,
            resample=self.interp if interp is None else interp,
            fill=self.fill,
        )
        array = np.asarray(result)
        return array[:, :, None] if single else array

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map float coordinates [N, 2] (x, y); returns a new float32 array."""
        h, w = self.output_size
        x0, y0, x1, y1 = self.src_rect
        scale = np.array([w / (x1 - x0), h / (y1 - y0)])
        return ((np.asarray(coords) - (x0, y0)) * scale).astype(np.float32)


class RotationTransform(Transform):
    """Rotate counter-clockwise.

    Args:
        h, w: size of the input.
        angle: in degrees.
        expand: make the output large enough for the whole rotated image; else h x w is kept.
        center: (x, y) of the fixed point; default: the image centre. No effect with ``expand``,
            where the result is centred anyway.
        interp: an OpenCV interpolation flag; default linear.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | None = None,
        interp: int | None = None,
    ) -> None:
        super().__init__()
        image_center = np.array((w / 2, h / 2))
        center = tuple(image_center) if center is None else center
        interp = cv2.INTER_LINEAR if interp is None else interp
        cos, sin = abs(np.cos(np.deg2rad(angle))), abs(np.sin(np.deg2rad(angle)))
        if expand:
            bound_w, bound_h = np.rint([h * sin + w * cos, h * cos + w * sin]).astype(int).tolist()
        else:
            bound_w, bound_h = w, h
        self._set_attributes(locals())
        self.rm_coords = self._rotation_matrix(0.0)
        # OpenCV puts pixel centres on whole numbers, we put them on halves.
        self.rm_image = self._rotation_matrix(-0.5)

    def _rotation_matrix(self, offset: float) -> np.ndarray:
        """2x3 affine matrix in coordinates moved by ``offset``."""
        center = (float(self.center[0]) + offset, float(self.center[1]) + offset)
        matrix = cv2.getRotationMatrix2D(center, float(self.angle), 1)
        if self.expand:
            moved_center = matrix[:, :2] @ (self.image_center + offset) + matrix[:, 2]
            matrix[:, 2] += np.array([self.bound_w / 2, self.bound_h / 2]) + offset - moved_center
        return matrix

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Rotate [H, W] or [H, W, C]; new pixels are 0."""
        if len(img) == 0 or self.angle % 360 == 0:
            return img
        if img.shape[:2] != (self.h, self.w):
            raise AssertionError(
                f"RotationTransform is for {self.h}x{self.w} images, got shape {img.shape}"
            )
        flags = self.interp if interp is None else interp
        return cv2.warpAffine(img, self.rm_image, (self.bound_w, self.bound_h), flags=flags)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=cv2.INTER_NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map coordinates [N, 2] (x, y); returns a new float64 array."""
        coords = np.asarray(coords, dtype=float)
        if len(coords) == 0 or self.angle % 360 == 0:
            return coords
        return coords @ self.rm_coords[:, :2].T + self.rm_coords[:, 2]

    def inverse(self) -> TransformList:
        """Rotate back, then crop to the original size (only with ``expand``)."""
        if not self.expand:
            raise NotImplementedError("without expand=True a rotation loses its corners")
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, True, None, self.interp)
        x0, y0 = (back.bound_w - self.w) // 2, (back.bound_h - self.h) // 2
        return TransformList([back, CropTransform(x0, y0, self.w, self.h)])


class ColorTransform(Transform):
    """Any function of the pixels; coordinates and labels stay.

    Args:
        op: array -> array of the same size.
    """

    def __init__(self, op: Callable[[np.ndarray], np.ndarray]) -> None:
        if not callable(op):
            raise ValueError(f"op should be callable, got {type(op).__name__}")
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self.op(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """ColorTransform whose function takes and returns a PIL image."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.asarray(self.op(Image.fromarray(img)))


def _hflip_rotated_boxes(transform: HFlipTransform, boxes: np.ndarray) -> np.ndarray:
    """Boxes [N, 5]: centre x, centre y, width, height, angle in degrees."""
    boxes[:, 0] = transform.width - boxes[:, 0]
    boxes[:, 4] = -boxes[:, 4]
    return boxes


def _resize_rotated_boxes(transform: Any, boxes: np.ndarray) -> np.ndarray:
    """As above; exact for equal scales, else the box stays a rectangle and is approximate."""
    scale_x = transform.new_w * 1.0 / transform.w
    scale_y = transform.new_h * 1.0 / transform.h
    theta = boxes[:, 4] * np.pi / 180.0
    cos, sin = np.cos(theta), np.sin(theta)
    boxes[:, 0] *= scale_x
    boxes[:, 1] *= scale_y
    boxes[:, 2] *= np.sqrt(np.square(scale_x * cos) + np.square(scale_y * sin))
    boxes[:, 3] *= np.sqrt(np.square(scale_x * sin) + np.square(scale_y * cos))
    boxes[:, 4] = np.arctan2(scale_x * sin, scale_y * cos) * 180 / np.pi
    return boxes


HFlipTransform.register_type("rotated_box", _hflip_rotated_boxes)
ResizeTransform.register_type("rotated_box", _resize_rotated_boxes)
NoOpTransform.register_type("rotated_box", lambda transform, boxes: boxes)

__getattr__ = missing_getattr(__name__)
