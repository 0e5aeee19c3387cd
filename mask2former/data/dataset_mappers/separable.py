"""Flips, resizes, crops and pads act on rows and columns independently: this uses it.

A label map after any chain of them is ``labels[rows][:, columns]`` plus padding, and an enlargement
followed by a crop is a horizontal pass, a column cut, a vertical pass and a row cut.
"""

import logging
from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from detectron2.data import transforms as T

logger = logging.getLogger(__name__)

_OUTSIDE = -1
# Up to this height + width torch's nearest-neighbour resize of planes takes a kernel that computes
# in float32, above it one that computes in the labels' float64; a few sizes round differently
# (ATen/native/cpu/UpSampleKernel.cpp).
_SMALL_OUTPUT = 128


@lru_cache(maxsize=1024)
def nearest_indices(old: int, new: int, rule: str) -> np.ndarray:
    """Which of ``old`` positions each of ``new`` ones copies when resizing by nearest neighbour.

    The indices come from the libraries themselves, so that roundings agree with them.

    Args:
        rule: "pil" (pixel centres, used by detectron2 for uint8), "torch" (floor, others) or
            "torch-small" (likewise, but torch computes small outputs in float32).
    """
    ramp = np.arange(old, dtype=np.int32)[None]
    if rule == "pil":
        indices = np.asarray(Image.fromarray(ramp).resize((new, 1), Image.Resampling.NEAREST))[0]
    else:
        wide = torch.from_numpy(ramp).double()[None]  # [1, 1, old]
        if rule == "torch-small":
            wide = F.interpolate(wide[None], (1, new), mode="nearest")[0]
        else:
            wide = F.interpolate(wide, new, mode="nearest")
        indices = wide[0, 0].numpy()
    indices = indices.astype(np.intp)
    indices.setflags(write=False)
    return indices


class AxisIndices:
    """Source row of each output row and source column of each output column; -1 is padding."""

    def __init__(self, height: int, width: int, rule: str) -> None:
        self.rows = np.arange(height)
        self.columns = np.arange(width)
        self._rule = rule
        self._pad_value = 0

    @classmethod
    def along(
        cls, steps: Iterable[T.Transform], height: int, width: int, rule: str
    ) -> "AxisIndices":
        """The indices after a chain of transforms of an image of the given size."""
        indices = cls(height, width, rule)
        for step in steps:
            indices.apply(step)
        return indices

    def apply(self, step: T.Transform) -> None:
        """Appends one transform; those that move no pixel change nothing."""
        if isinstance(step, T.HFlipTransform):
            self.columns = self.columns[::-1]
        elif isinstance(step, T.VFlipTransform):
            self.rows = self.rows[::-1]
        elif isinstance(step, T.ResizeTransform):
            rule = self._rule
            if rule == "torch" and step.new_h + step.new_w <= _SMALL_OUTPUT:
                rule = "torch-small"
            self.rows = self.rows[nearest_indices(len(self.rows), step.new_h, rule)]
            self.columns = self.columns[nearest_indices(len(self.columns), step.new_w, rule)]
        elif isinstance(step, T.CropTransform):
            self.rows = self.rows[step.y0 : step.y0 + step.h]
            self.columns = self.columns[step.x0 : step.x0 + step.w]
        elif isinstance(step, T.PadTransform):
            self.rows = np.pad(self.rows, (step.y0, step.y1), constant_values=_OUTSIDE)
            self.columns = np.pad(self.columns, (step.x0, step.x1), constant_values=_OUTSIDE)
            # Release 0.6 has no value of its own for segmentations.
            self._pad_value = getattr(step, "seg_pad_value", 0)

    def gather(self, labels: np.ndarray, fill: int | None) -> np.ndarray:
        """Carries a map [H, W] along, in its own dtype.

        Args:
            fill: value of padded pixels; None takes that of the pad transform.
        """
        rows, columns = self.rows, self.columns
        inside_rows, inside_columns = rows != _OUTSIDE, columns != _OUTSIDE
        padded = not (inside_rows.all() and inside_columns.all())
        if padded:
            rows, columns = rows[inside_rows], columns[inside_columns]
        # The shorter intermediate first; whole rows are cheap to copy.
        if len(rows) < labels.shape[0]:
            picked = labels[rows].take(columns, axis=1)
        else:
            picked = labels.take(columns, axis=1)[rows]
        if not padded:
            return picked
        value = self._pad_value if fill is None else fill
        result = np.full((len(self.rows), len(self.columns)), value, labels.dtype)
        result[np.ix_(inside_rows, inside_columns)] = picked
        return result


def shape_after(step: T.Transform, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape (height, width, ...) of an image after one transform."""
    height, width, *rest = shape
    if isinstance(step, T.ResizeTransform):
        height, width = step.new_h, step.new_w
    elif isinstance(step, T.CropTransform):
        height = min(step.h, height - step.y0)
        width = min(step.w, width - step.x0)
    elif isinstance(step, T.PadTransform):
        height, width = height + step.y0 + step.y1, width + step.x0 + step.x1
    return (height, width, *rest)


def render_image(image: np.ndarray, steps: list[T.Transform]) -> np.ndarray:
    """Applies transforms to a uint8 [H, W, C] image, resizing only what a following crop keeps."""
    position = 0
    while position < len(steps):
        step = steps[position]
        following = steps[position + 1] if position + 1 < len(steps) else None
        if _crop_pays(image, step, following):
            image = _enlarge_and_crop(image, step, following)
            position += 2
        elif isinstance(step, T.HFlipTransform) and image.shape[2] == 3:
            # A reversed view would cost more when it is read.
            image = cv2.flip(np.ascontiguousarray(image), 1)
            position += 1
        else:
            image = step.apply_image(image)
            position += 1
    return image


def _crop_pays(image: np.ndarray, step: T.Transform, following: T.Transform | None) -> bool:
    """Whether `_enlarge_and_crop` applies here and saves work.

    Pillow resizes 8-bit images in two passes, rounding to 8 bits between them. When it enlarges
    vertically the horizontal pass comes first; when it shrinks, newer versions may turn the order
    round, and then the passes cannot be told apart from outside.
    """
    return (
        isinstance(step, T.ResizeTransform)
        and isinstance(following, T.CropTransform)
        and image.shape[2] == 3
        and step.new_h >= image.shape[0]
        and following.w < step.new_w
        and _horizontal_pass_is_first(step.interp)
    )


def _enlarge_and_crop(
    image: np.ndarray, resize: T.ResizeTransform, crop: T.CropTransform
) -> np.ndarray:
    """Pillow's resize and a crop: its two passes one by one, cutting between them. Same bytes."""
    height = image.shape[0]
    x1 = min(crop.x0 + crop.w, resize.new_w)
    y1 = min(crop.y0 + crop.h, resize.new_h)
    top, bottom = _rows_in_reach(height, resize.new_h, crop.y0, y1)
    needed = Image.fromarray(np.ascontiguousarray(image[top:bottom]))
    wide = needed.resize((resize.new_w, bottom - top), resize.interp)
    wide = wide.crop((crop.x0, 0, x1, bottom - top))
    if bottom - top != height:  # the vertical pass wants its rows where they belong
        canvas = Image.new(wide.mode, (wide.width, height))
        canvas.paste(wide, (0, top))
        wide = canvas
    tall = wide.resize((wide.width, resize.new_h), resize.interp)
    return np.asarray(tall.crop((0, crop.y0, tall.width, y1)))


def _rows_in_reach(old: int, new: int, first: int, last: int) -> tuple[int, int]:
    """Input rows that output rows ``first:last`` of an enlargement can depend on."""
    reach = 5  # Lanczos, Pillow's widest filter, looks 3 pixels far
    return max(0, first * old // new - reach), min(old, last * old // new + reach)


@lru_cache(maxsize=8)
def _horizontal_pass_is_first(interp: int) -> bool:
    """Tries it on a small image, once: another Pillow may do otherwise."""
    probe = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    small = Image.fromarray(probe)
    at_once = np.asarray(small.resize((50, 41), interp))
    in_steps = np.asarray(small.resize((50, 24), interp).resize((50, 41), interp))
    same = np.array_equal(at_once, in_steps)
    if not same:
        logger.warning("This Pillow resizes in another order; crops cost a little more here.")
    return same
