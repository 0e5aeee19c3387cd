"""Colours that stay with an object from frame to frame of a video."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from detectron2.utils.colormap import colormap

Color = tuple[float, float, float]

# Masks are compared at this size: fast, and exact enough to tell objects apart.
_SIDE = 160


@dataclass
class _Track:
    """An object seen lately: where it was (reduced mask), how it moves, in reduced pixels."""

    label: int
    color: int  # position in the palette
    mask: np.ndarray
    center: np.ndarray
    velocity: np.ndarray
    unseen: int = 0

    def expected(self) -> np.ndarray:
        """The mask where it should be in the frame that comes."""
        dy, dx = np.round(self.velocity * (self.unseen + 1)).astype(int)
        return _shifted(self.mask, dy, dx)


class ColorTracks:
    """Gives each object the colour it had in earlier frames.

    Objects are matched with those of earlier frames so that the sum of their masks' overlaps (IoU)
    is largest; only objects of one class match. A lost object is remembered for some frames and
    expected where its motion would have taken it, so that a missed detection or another object in
    front of it does not change its colour.

    Args:
        least_iou: overlap from which two masks can be one object.
        memory: frames for which an object that is not seen is remembered.
    """

    def __init__(self, *, least_iou: float = 0.2, memory: int = 15) -> None:
        self.least_iou, self.memory = least_iou, memory
        table = colormap(rgb=True, maximum=1).tolist()
        self._palette: list[Color] = list(dict.fromkeys(map(tuple, table)))
        self._next = 0
        self._tracks: list[_Track] = []

    def assign(self, classes: Sequence[int], masks: np.ndarray) -> list[Color]:
        """The colours of one frame's objects; to be called for every frame, also with none.

        Args:
            classes: of the objects, length N.
            masks: bool [N, H, W].

        Returns:
            N RGB triples in [0, 1]; objects that are there together differ while detectron2's
            palette lasts.
        """
        reduced = [_reduced(mask) for mask in masks]
        matches = self._match(classes, reduced)
        seen: list[_Track] = []
        for i, (label, mask) in enumerate(zip(classes, reduced)):
            track = matches.get(i)
            if track is None:
                here = _center(mask)
                track = _Track(label, self._free_color(), mask, here, np.zeros(2))
                self._tracks.append(track)
            else:
                here = _center(mask)
                moved = (here - track.center) / (track.unseen + 1)
                track.velocity = 0.5 * track.velocity + 0.5 * moved
                track.mask, track.center, track.unseen = mask, here, 0
            seen.append(track)
        for track in self._tracks:
            if not any(track is s for s in seen):
                track.unseen += 1
        self._tracks = [t for t in self._tracks if t.unseen <= self.memory]
        return [self._palette[t.color] for t in seen]

    def _match(self, classes: Sequence[int], masks: list[np.ndarray]) -> dict[int, _Track]:
        if not self._tracks or not masks or self._tracks[0].mask.shape != masks[0].shape:
            return {}
        expected = np.stack([t.expected().ravel() for t in self._tracks]).astype(np.float32)
        found = np.stack([m.ravel() for m in masks]).astype(np.float32)
        both = expected @ found.T
        union = expected.sum(1)[:, None] + found.sum(1)[None] - both
        ious = both / np.maximum(union, 1)
        same = np.array([[t.label == c for c in classes] for t in self._tracks])
        ious = np.where(same & (ious >= self.least_iou), ious, 0.0)
        rows, columns = linear_sum_assignment(-ious)
        return {int(j): self._tracks[i] for i, j in zip(rows, columns) if ious[i, j] > 0}

    def _free_color(self) -> int:
        """The next colour in turn that no track has."""
        taken = {track.color for track in self._tracks}
        count = len(self._palette)
        for step in range(count):
            color = (self._next + step) % count
            if color not in taken:
                break
        self._next = color + 1
        return color


def _reduced(mask: np.ndarray) -> np.ndarray:
    factor = max(1, -(-max(mask.shape) // _SIDE))
    small = np.asarray(mask, dtype=bool)[::factor, ::factor]
    if small.any():
        return small
    # Too small an object for the grid: it counts as the cells that it touches.
    small = np.zeros_like(small)
    y, x = np.nonzero(mask)
    small[y // factor, x // factor] = True
    return small


def _center(mask: np.ndarray) -> np.ndarray:
    y, x = np.nonzero(mask)
    return np.array([y.mean(), x.mean()]) if len(y) else np.zeros(2)


def _shifted(mask: np.ndarray, dy: int, dx: int) -> np.ndarray:
    height, width = mask.shape
    result = np.zeros_like(mask)
    if abs(dy) < height and abs(dx) < width:
        result[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = mask[
            max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)
        ]
    return result
