"""Augmentations of geometry without cropping: flips, resizing, rotation, extent."""

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform
from PIL import Image

from detectron2.data.transforms.augmentation import Augmentation
from detectron2.data.transforms.transform import (
    ExtentTransform,
    ResizeTransform,
    RotationTransform,
)

BILINEAR = Image.Resampling.BILINEAR


class RandomFlip(Augmentation):
    """Flip horizontally or vertically with probability ``prob``.

    Raises:
        ValueError: both or neither direction is chosen.
    """

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        super().__init__()
        if horizontal and vertical:
            raise ValueError("Cannot flip in both directions: use two RandomFlip instead.")
        if not horizontal and not vertical:
            raise ValueError("RandomFlip needs a direction: horizontal or vertical.")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        if not self._rand_range() < self.prob:
            return NoOpTransform()
        return HFlipTransform(w) if self.horizontal else VFlipTransform(h)


class Resize(Augmentation):
    """Resize to a fixed size.

    Args:
        shape: (h, w), or one int for both.
        interp: a PIL resampling method.
    """

    def __init__(self, shape: int | Sequence[int], interp: int = BILINEAR) -> None:
        super().__init__()
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class RandomResize(Augmentation):
    """Resize to one of several sizes.

    Args:
        shape_list: of (h, w) or ints.
        interp: a PIL resampling method.
    """

    def __init__(self, shape_list: Sequence, interp: int = BILINEAR) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        shape = self.shape_list[np.random.choice(len(self.shape_list))]
        h, w = (shape, shape) if isinstance(shape, int) else shape
        return ResizeTransform(*image.shape[:2], h, w, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter side has a drawn length, the longer at most ``max_size``.

    Args:
        short_edge_length: an int; or with sample_style "range" the two ends [min, max] of a range
            (both included), with "choice" the lengths to choose from. 0 leaves the image alone.
        max_size: of the longer side, in pixels.
        sample_style: "range" or "choice".
        interp: a PIL resampling method.

    Raises:
        AssertionError: unknown style, or a range without exactly two ends.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = BILINEAR,
    ) -> None:
        super().__init__()
        if sample_style not in ("range", "choice"):
            raise AssertionError(f"sample_style must be 'range' or 'choice', not {sample_style!r}")
        self.is_range = sample_style == "range"
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        if self.is_range and len(short_edge_length) != 2:
            raise AssertionError(
                "short_edge_length must be the two ends of a range for sample_style 'range', "
                f"got {short_edge_length}"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        if self.is_range:
            low, high = self.short_edge_length
            size = np.random.randint(low, high + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        new_h, new_w = self.get_output_shape(h, w, int(size), self.max_size)
        return ResizeTransform(h, w, new_h, new_w, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(h, w) after resizing; sides are rounded half up."""
        size = short_edge_length * 1.0
        scale = size / min(oldh, oldw)
        new_h, new_w = (size, scale * oldw) if oldh < oldw else (scale * oldh, size)
        longer = max(new_h, new_w)
        if longer > max_size:
            scale = max_size * 1.0 / longer
            new_h, new_w = new_h * scale, new_w * scale
        return int(new_h + 0.5), int(new_w + 0.5)


class ResizeScale(Augmentation):
    """Fit into the target size, times a random scale: "large scale jittering".

    Ghiasi et al., "Simple Copy-Paste", CVPR 2021. The aspect ratio is kept.

    Args:
        min_scale, max_scale: range of the scale.
        target_height, target_width: the size that scale 1 fits into.
        interp: a PIL resampling method.
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = BILINEAR,
    ) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        scale = np.random.uniform(self.min_scale, self.max_scale)
        return self._get_resize(image, scale)

    def _get_resize(self, image: np.ndarray, scale: float) -> Transform:
        h, w = image.shape[:2]
        ratio = min(self.target_height * scale / h, self.target_width * scale / w)
        # At least one pixel: very long images at a small scale.
        new_h, new_w = np.maximum(np.round(np.multiply((h, w), ratio)), 1).astype(int).tolist()
        return ResizeTransform(h, w, new_h, new_w, self.interp)


class RandomRotation(Augmentation):
    """Rotate counter-clockwise by a random angle.

    Args:
        angle: degrees; with sample_style "range" the two ends [min, max], with "choice" the angles
            to choose from; one number is itself.
        expand: enlarge the image so that all of it stays visible.
        center: fixed point(s) as shares (x, y) of width and height: the two corners of a range,
            or the points to choose from; default the middle. No effect with ``expand``.
        sample_style: "range" or "choice".
        interp: an OpenCV interpolation flag; default linear.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ) -> None:
        super().__init__()
        if sample_style not in ("range", "choice"):
            raise AssertionError(f"sample_style must be 'range' or 'choice', not {sample_style!r}")
        self.is_range = sample_style == "range"
        if isinstance(angle, (float, int)):
            angle = (angle, angle)
        if center is not None and isinstance(center[0], (float, int)):
            center = (center, center)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        center = None
        if self.is_range:
            angle = np.random.uniform(self.angle[0], self.angle[1])
            if self.center is not None:
                (x0, y0), (x1, y1) = self.center
                center = (np.random.uniform(x0, x1), np.random.uniform(y0, y1))
        else:
            angle = np.random.choice(self.angle)
            if self.center is not None:
                center = self.center[np.random.choice(len(self.center))]
        if center is not None:
            center = (w * center[0], h * center[1])
        if angle % 360 == 0:
            return NoOpTransform()
        return RotationTransform(
            h, w, float(angle), expand=self.expand, center=center, interp=self.interp
        )


class RandomExtent(Augmentation):
    """Cut out a randomly scaled and moved rectangle; outside the image is black.

    Args:
        scale_range: ends of the scale of the rectangle relative to the image.
        shift_range: largest shift (x, y), as a share of the image; drawn in +- half of it.
    """

    def __init__(self, scale_range: tuple[float, float], shift_range: tuple[float, float]) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        half = 0.5 * np.array([w, h]) * np.random.uniform(*self.scale_range)
        shift_x = self.shift_range[0] * w * (np.random.rand() - 0.5)
        shift_y = self.shift_range[1] * h * (np.random.rand() - 0.5)
        center = np.array([0.5 * w + shift_x, 0.5 * h + shift_y])
        (x0, y0), (x1, y1) = (center - half).tolist(), (center + half).tolist()
        return ExtentTransform((x0, y0, x1, y1), output_size=(int(y1 - y0), int(x1 - x0)))
