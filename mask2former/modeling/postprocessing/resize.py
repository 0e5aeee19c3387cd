"""From mask logits at stride 4 to strips of the requested image, in one step and little memory.

The published code resizes all masks to the padded input, crops them to the image and resizes them
again. Both resizings are linear and act on rows and columns separately, so together they are one
matrix for rows and one for columns. These are banded, so an output strip needs few input rows.
On a CPU a compiled kernel leaves out all zeros; the products of matrices here are what it is tested
against.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.ops import mask_strips

from ..mask_predictions import at_least_float32

Size = tuple[int, int]

# Values of a strip: small enough for a CPU's cache, large enough to be worth a kernel's start.
STRIP_VALUES = {"cpu": 1 << 21, "cuda": 1 << 26}
# Columns made at once on a CPU, where skipping the zeros beside the band pays.
COLUMN_BLOCK = 128


@dataclass(frozen=True)
class Axis:
    """A linear map along one axis.

    Attributes:
        weights: float32 [target, source].
        first, last: for each target the half-open range of its sources, on the host.
    """

    weights: Tensor
    first: list[int]
    last: list[int]

    def block(self, start: int, stop: int) -> tuple[slice, Tensor]:
        """The sources of targets ``start`` to ``stop``, and their part of the matrix."""
        source = slice(min(self.first[start:stop]), max(self.last[start:stop]))
        return source, self.weights[start:stop, source]

    @cached_property
    def row_taps(self) -> mask_strips.Taps:
        """The same for a kernel, as a map of rows."""
        return mask_strips.Taps.of(self.weights, self.first, self.last)

    @cached_property
    def column_taps(self) -> mask_strips.Taps:
        """The same for a kernel, as a map of columns."""
        return self.row_taps.for_columns()


@dataclass(frozen=True)
class Frame:
    """The sizes, (height, width), that a mask passes through on its way to the output.

    Attributes:
        padded: the network's input, to which masks are resized first.
        valid: the image in the top left corner of it, to which they are cropped.
        output: what was asked for.
    """

    padded: Size
    valid: Size
    output: Size


def strips(
    masks: Tensor, frame: Frame | None, channels: int = 0, sigmoid: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Resized masks, a few output rows at a time.

    Args:
        masks: logits [N, h, w].
        frame: None takes the masks as they are.
        channels: what is made of a strip, if that is more than N.
        sigmoid: for probabilities instead of logits.

    Yields:
        rows of the output, and the logits (or probabilities) there: float32 (or float64) [N, rows,
        width]; contiguous if there is a frame or they are probabilities.
    """
    masks = at_least_float32(masks)
    channels = max(channels, len(masks))
    if frame is None:
        for rows in _strips_of_rows(channels, *masks.shape[1:], masks.device):
            yield rows, masks[:, rows].sigmoid().contiguous() if sigmoid else masks[:, rows]
        return
    if mask_strips.applies(masks):
        row_axis, column_axis = _axes(masks, frame)
        taps = row_axis.row_taps, column_axis.column_taps
        if max(axis.count for axis in taps) <= mask_strips.MOST_TAPS:
            for rows in _strips_of_rows(channels, *frame.output, masks.device):
                yield rows, mask_strips.resize(masks, *taps, rows, frame.output[1], sigmoid)
            return
    for rows, source, weights, columns in resizing(masks, frame, channels):
        resized = resize_columns(weights @ source, columns)
        yield rows, resized.sigmoid() if sigmoid else resized


def resizing(
    masks: Tensor, frame: Frame, channels: int = 0
) -> Iterator[tuple[slice, Tensor, Tensor, Axis]]:
    """Rows of the output, what they are made of, [N, s, w], and the maps [rows, s], [width, w]."""
    row_axis, column_axis = _axes(masks, frame)
    for rows in _strips_of_rows(max(channels, len(masks)), *frame.output, masks.device):
        source, weights = row_axis.block(rows.start, rows.stop)
        yield rows, masks[:, source], weights, column_axis


def _axes(masks: Tensor, frame: Frame) -> list[Axis]:
    sides = zip(masks.shape[1:], frame.padded, frame.valid, frame.output)
    return [resize_axis(*sizes, masks.dtype, masks.device) for sizes in sides]


def _strips_of_rows(count: int, height: int, width: int, device: torch.device) -> Iterator[slice]:
    values = STRIP_VALUES.get(device.type, STRIP_VALUES["cuda"])
    step = max(1, values // max(1, count * width))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def at_queries(probs: Tensor, index: Tensor) -> Tensor:
    """``probs[index]`` for an ascending index, without a copy where that is all of them."""
    return probs if len(index) == len(probs) else probs.index_select(0, index)


def resize_columns(masks: Tensor, axis: Axis) -> Tensor:
    """Resizes along the last axis, [N, rows, w] -> [N, rows, width]."""
    width = len(axis.weights)
    if masks.device.type != "cpu":
        return masks @ axis.weights.T
    flat = masks.flatten(0, 1)  # [N*rows, w]
    resized = flat.new_empty(len(flat), width)
    for start in range(0, width, COLUMN_BLOCK):
        columns = slice(start, min(start + COLUMN_BLOCK, width))
        source, weights = axis.block(columns.start, columns.stop)
        torch.mm(flat[:, source], weights.T, out=resized[:, columns])
    return resized.unflatten(0, masks.shape[:2])


@lru_cache(maxsize=32)
def resize_axis(
    source: int, padded: int, valid: int, output: int, dtype: torch.dtype, device: torch.device
) -> Axis:
    """Resize ``source`` to ``padded``, keep the first ``valid``, resize these to ``output``."""
    to_padded = _bilinear(source, padded)[:valid]
    weights = _bilinear(valid, output) @ to_padded if valid != output else to_padded
    used = weights != 0  # [output, source]
    first = used.int().argmax(1)
    last = source - used.flip(1).int().argmax(1)
    return Axis(weights.to(device, dtype), first.tolist(), last.tolist())


def _bilinear(source: int, target: int) -> Tensor:
    """The float32 matrix [target, source] of ``F.interpolate``, asked of that function itself."""
    unit = torch.eye(source).view(1, source, source, 1)
    resized = F.interpolate(unit, size=(target, 1), mode="bilinear", align_corners=False)
    return resized[0, :, :, 0].T.contiguous()
