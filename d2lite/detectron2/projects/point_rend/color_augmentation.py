"""Colour jitter of SSD."""

import random

import cv2
import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform

from detectron2._missing import missing_getattr

__all__ = ["ColorAugSSDTransform"]

# OpenCV's hue of uint8 images: degrees / 2.
_HUES = 180


class ColorAugSSDTransform(Transform):
    """Random brightness, contrast, saturation and hue (SSD, Liu et al., ECCV 2016, section 2.2).

    Each is applied with chance 1/2; contrast comes before saturation and hue, or after them, with
    equal chance. Unlike other transforms it draws at every :meth:`apply_image` (from Python's
    ``random``), so apply it once per image.

    Args:
        img_format: "BGR" or "RGB".
        brightness_delta: largest shift of all channels, of 255.
        contrast_low, contrast_high: range of the factor of all channels.
        saturation_low, saturation_high: range of the factor of the saturation.
        hue_delta: largest shift of the hue, of 180.

    Raises:
        AssertionError: another format.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: int = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: int = 18,
    ) -> None:
        super().__init__()
        if img_format not in ("BGR", "RGB"):
            raise AssertionError(
                f"ColorAugSSDTransform works on BGR or RGB images (INPUT.FORMAT), not {img_format}"
            )
        self.is_rgb = img_format == "RGB"
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Jitter a uint8 image [H, W, 3]; a new array unless nothing was drawn."""
        img = self.brightness(img)
        if random.randrange(2):
            return self.hue(self.saturation(self.contrast(img)))
        return self.contrast(self.hue(self.saturation(img)))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        return NoOpTransform()

    def brightness(self, img: np.ndarray) -> np.ndarray:
        """Maybe shift all channels."""
        if random.randrange(2):
            shift = random.uniform(-self.brightness_delta, self.brightness_delta)
            return _look_up(img, _line(beta=shift))
        return img

    def contrast(self, img: np.ndarray) -> np.ndarray:
        """Maybe scale all channels."""
        if random.randrange(2):
            factor = random.uniform(self.contrast_low, self.contrast_high)
            return _look_up(img, _line(alpha=factor))
        return img

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Maybe scale the saturation."""
        if random.randrange(2):
            factor = random.uniform(self.saturation_low, self.saturation_high)
            return self._change_hsv(img, 1, _line(alpha=factor))
        return img

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Maybe turn the hue."""
        if random.randrange(2):
            shift = random.randint(-self.hue_delta, self.hue_delta)
            return self._change_hsv(img, 0, ((np.arange(256) + shift) % _HUES).astype(np.uint8))
        return img

    def _change_hsv(self, img: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
        to_hsv, back = (
            (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB)
            if self.is_rgb
            else (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR)
        )
        hsv = cv2.cvtColor(np.ascontiguousarray(img), to_hsv)
        tables = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 3))
        tables[:, channel] = table
        return cv2.cvtColor(cv2.LUT(hsv, tables[None]), back)


def _line(alpha: float = 1.0, beta: float = 0.0) -> np.ndarray:
    """Table of v * alpha + beta for v in 0..255, clipped and cut to uint8."""
    values = np.arange(256, dtype=np.float32) * np.float32(alpha) + np.float32(beta)
    return np.clip(values, 0, 255).astype(np.uint8)


def _look_up(img: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``table[img]``; with 256 values a table is much faster than float arithmetic per pixel."""
    return cv2.LUT(np.ascontiguousarray(img), table)


__getattr__ = missing_getattr(__name__)
