"""COCO's run-length encoding in numpy: equal to pycocotools' to the letter, without the GIL.

pycocotools wants a copy of all pixels in column order and walks through them one by one, holding
the GIL. Here only the box around a mask is transposed, changes of value are found by vectorised
comparisons, and the text is written for all masks of an image at once.
"""

from collections.abc import Sequence

import numpy as np


def encode_masks(masks: np.ndarray) -> list[dict]:
    """RLE of each mask: ``{"size": [H, W], "counts": text}``.

    Args:
        masks: bool ``[N, H, W]``.
    """
    size = masks.shape[1:]
    return _as_rles([_borders(mask) for mask in masks], size)


def encode_labels(labels: np.ndarray) -> dict[int, dict]:
    """RLE of the pixels of every label that occurs, by rising label.

    Args:
        labels: integers ``[H, W]``.
    """
    columns = np.ascontiguousarray(labels.T).ravel()
    starts = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    starts = np.concatenate([np.zeros(min(1, columns.size), np.intp), starts])
    ends = np.append(starts[1:], columns.size)
    of_run = columns[starts]
    order = np.argsort(of_run, kind="stable")
    borders = np.stack([starts[order], ends[order]], 1).ravel()
    found, first = np.unique(of_run[order], return_index=True)
    per_label = np.split(borders, 2 * first[1:]) if len(found) else []
    return dict(zip(found.tolist(), _as_rles(per_label, labels.shape)))


def _borders(mask: np.ndarray) -> np.ndarray:
    """Where, counting down the columns, runs of a mask begin and end, in turn."""
    height = mask.shape[0]
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return rows
    top, bottom = rows[0], rows[-1] + 1
    columns = np.flatnonzero(mask[top:bottom].any(0))
    left, right = columns[0], columns[-1] + 1
    # An empty row on either side: a run ends with its column.
    box = np.zeros((right - left, bottom - top + 2), bool)
    box[:, 1:-1] = mask[top:bottom, left:right].T
    flat = box.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(changes, box.shape[1])
    borders = (column + left) * height + (row + top)
    if bottom - top == height:  # from the last row of a column a run may go on in the next one
        goes_on = 2 * np.flatnonzero(borders[1:-1:2] == borders[2::2]) + 1
        borders = np.delete(borders, np.concatenate([goes_on, goes_on + 1]))
    return borders


def _as_rles(borders: Sequence[np.ndarray], size: tuple[int, int]) -> list[dict]:
    pixels = size[0] * size[1]
    counts = [
        np.diff(own, prepend=0, append=pixels)[: len(own) + (not len(own) or own[-1] < pixels)]
        for own in borders
    ]
    return [{"size": list(size), "counts": text} for text in _texts(counts)]


def _texts(counts: Sequence[np.ndarray]) -> list[str]:
    """COCO's text for run lengths.

    From the fourth on, a number is written as its difference to the last but one. Numbers are cut
    into five bits a character, lowest first; the sixth bit says that more follow (as in LEB128).
    """
    if not counts:
        return []
    numbers = np.concatenate(counts)
    lengths = np.array([len(own) for own in counts])
    ends = np.cumsum(lengths)
    written = numbers.copy()
    written[2:] -= numbers[:-2]
    begin = ends - lengths
    for first in range(3):  # which are written as they are
        at = begin[lengths > first] + first
        written[at] = numbers[at]

    digits, kept = [], []
    rest, is_left = written, np.ones(len(written), bool)
    while is_left.any():
        digit = (rest & 31).astype(np.uint8)
        rest = rest >> 5
        more = is_left & (rest != np.where(digit & 16, -1, 0))
        digits.append(digit + (more << 5).astype(np.uint8) + np.uint8(48))
        kept.append(is_left)
        is_left = more
    is_kept = np.stack(kept, 1)
    text = np.stack(digits, 1)[is_kept].tobytes().decode("ascii")
    characters = np.cumsum(is_kept.sum(1))[ends - 1].tolist()
    return [text[a:b] for a, b in zip([0, *characters[:-1]], characters)]
