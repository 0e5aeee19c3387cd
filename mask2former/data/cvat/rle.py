"""CVAT's run-length coding of masks.

A mask is stored as its tight box and the row-major run lengths inside it, which alternate
background and foreground and begin with background: a box whose first pixel is set begins with 0.
The run lengths always add up to width * height. (The published pipeline of gohjiayi/Mask2Former
wrote a leading 1 instead, which shifts the mask by one pixel; files of that kind are recognised by
their sum and mended on reading.)
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CvatMask:
    """A mask element's geometry; ``left``, ``top``, ``width``, ``height`` in pixels."""

    counts: tuple[int, ...]
    left: int
    top: int
    width: int
    height: int

    @property
    def rle(self) -> str:
        """The attribute ``rle``: run lengths joined by ``", "``."""
        return ", ".join(map(str, self.counts))

    @property
    def points(self) -> list[int]:
        """The list CVAT's server API uses: run lengths, then left, top, right, bottom inclusive."""
        right, bottom = self.left + self.width - 1, self.top + self.height - 1
        return [*self.counts, self.left, self.top, right, bottom]

    @property
    def attributes(self) -> dict[str, str]:
        """XML attributes in CVAT's order."""
        box = {"left": self.left, "top": self.top, "width": self.width, "height": self.height}
        return {"rle": self.rle, **{key: str(value) for key, value in box.items()}}


def encode_mask(mask: np.ndarray) -> CvatMask | None:
    """Codes a mask.

    Args:
        mask: [H, W], any dtype; non-zero is foreground.

    Returns:
        the coded mask, or None when it has no foreground.
    """
    mask = np.asarray(mask) != 0
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    if not rows.any():
        return None
    top, left = int(rows.argmax()), int(columns.argmax())
    bottom = len(rows) - int(rows[::-1].argmax())
    right = len(columns) - int(columns[::-1].argmax())
    box = mask[top:bottom, left:right]
    return CvatMask(_run_lengths(box.ravel()), left, top, right - left, bottom - top)


def decode_mask(coded: CvatMask, height: int, width: int) -> np.ndarray:
    """The mask [height, width], bool. Parts of the box outside the image are cut off.

    Raises:
        ValueError: the run lengths do not add up to the box.
    """
    counts = np.asarray(coded.counts, dtype=np.int64)
    area = coded.width * coded.height
    if len(counts) and counts.sum() == area + 1 and counts[0] == 1:
        counts = counts.copy()
        counts[0] = 0  # the published pipeline's leading 1, see the module's docstring
    if counts.sum() != area or (counts < 0).any():
        raise ValueError(
            f"mask run lengths add up to {counts.sum()}, but its box is "
            f"{coded.width}x{coded.height} = {area} pixels"
        )
    values = np.arange(len(counts)) % 2 == 1
    box = np.repeat(values, counts).reshape(coded.height, coded.width)
    mask = np.zeros((height, width), dtype=bool)
    y0, x0 = max(coded.top, 0), max(coded.left, 0)
    y1, x1 = min(coded.top + coded.height, height), min(coded.left + coded.width, width)
    if y1 > y0 and x1 > x0:
        mask[y0:y1, x0:x1] = box[y0 - coded.top : y1 - coded.top, x0 - coded.left : x1 - coded.left]
    return mask


def _run_lengths(values: np.ndarray) -> tuple[int, ...]:
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    edges = np.concatenate(([0], changes, [len(values)]))
    runs = np.diff(edges).tolist()
    return tuple([0, *runs] if values[0] else runs)
