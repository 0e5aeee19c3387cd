"""Checks of a COCO instances file before it is read: ids, sizes, coordinates, run lengths."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_FARTHEST = 1e6  # pixels; sums and areas of what lies beyond fill any memory

_KEYS = {
    "categories": ("id", "name"),
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id"),
}


@dataclass(frozen=True)
class CocoProblem:
    """What makes a file unusable.

    Attributes:
        kind: "missing-key", "repeated-id", "unknown-category" or "broken-mask".
        text: one case, in words.
        count: how many cases ``text`` stands for.
    """

    kind: str
    text: str
    count: int = 1


def first_problem(content: dict[str, Any]) -> str | None:
    """What makes a file in COCO's instances format unusable, with an example; None if nothing.

    Args:
        content: the file's ``images``, ``annotations`` and ``categories``.
    """
    problem = next(coco_problems(content), None)
    return problem and problem.text


def unknown_images(content: dict[str, Any]) -> int:
    """How many annotations are of images that the file does not list."""
    known = {image["id"] for image in content["images"]}
    return sum(ann.get("image_id") not in known for ann in content["annotations"])


def coco_problems(content: dict[str, Any]) -> Iterator[CocoProblem]:
    """Everything that makes a file in COCO's instances format unusable.

    Args:
        content: as `first_problem`.
    """
    complete: dict[str, list[dict[str, Any]]] = {}
    for part, keys in _KEYS.items():
        complete[part] = []
        for row in content.get(part) or []:
            lacking = next((key for key in keys if key not in row), None)
            if lacking is None:
                complete[part].append(row)
            else:
                text = f'{part} has an entry without "{lacking}": {_short(row)}'
                yield CocoProblem("missing-key", text)
        for value, count in Counter(row["id"] for row in complete[part]).items():
            if count > 1:
                yield CocoProblem("repeated-id", f"{part} has the id {value!r} {count} times")
    known = {row["id"] for row in complete["categories"]}
    wrong = [a for a in complete["annotations"] if a["category_id"] not in known]
    if wrong:
        text = (
            f"{len(wrong)} annotations have a category_id that categories does not list, e.g. "
            f"annotation {wrong[0]['id']}: {wrong[0]['category_id']!r}"
        )
        yield CocoProblem("unknown-category", text, len(wrong))
    sizes = {image["id"]: (image["height"], image["width"]) for image in complete["images"]}
    for annotation in complete["annotations"]:
        problem = _broken_mask(annotation.get("segmentation"), sizes.get(annotation["image_id"]))
        if problem:
            text = f"annotation {annotation['id']} of image {annotation['image_id']}: {problem}"
            yield CocoProblem("broken-mask", text)


def _broken_mask(segmentation: Any, size: tuple[int, int] | None) -> str | None:
    if not segmentation or size is None:
        return None
    if isinstance(segmentation, dict):
        return _broken_run_lengths(segmentation, size)
    for polygon in segmentation:
        if not isinstance(polygon, list):
            return "its segmentation is no list of polygons [[x, y, x, y, ...], ...]"
        try:
            # NaN fails every comparison.
            near = math.isfinite(sum(polygon)) and max(map(abs, polygon), default=0) <= _FARTHEST
        except TypeError:
            return "its outline has coordinates that are no numbers"
        if not near:
            return "its outline has coordinates that are not finite, or far outside"
    return None


def _broken_run_lengths(segmentation: dict[str, Any], size: tuple[int, int]) -> str | None:
    counts = segmentation.get("counts")
    if tuple(segmentation.get("size") or ()) != size:
        return f"its run lengths have the size {segmentation.get('size')}, its image {size}"
    if isinstance(counts, str):
        lengths = _uncompressed(counts)
        if lengths is None:
            return "its compressed run lengths are cut off or have characters that do not occur"
    elif isinstance(counts, list) and all(isinstance(v, int) for v in counts):
        lengths = np.array(counts, dtype=object)
    else:
        return "its run lengths (counts) are neither a list of whole numbers nor a string"
    total, pixels = int(lengths.sum()), size[0] * size[1]
    if len(lengths) and lengths.min() < 0:
        return "its run lengths are negative in places"
    if total != pixels:
        return f"its run lengths add up to {total}, its image has {pixels}"
    return None


def _uncompressed(counts: str) -> np.ndarray | None:
    """Run lengths of a compressed string; None where it is none.

    The code is that of pycocotools (rleFrString): six bits a character, from "0"; five of them are
    digits, lowest first, the sixth says that more follow; from the fourth number on, differences
    to the number before the last. pycocotools itself decodes any string, to anything.
    """
    digits = np.frombuffer(counts.encode(), dtype=np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 6:  # 35 bits; no image is that large
        return None
    shifts = 5 * (np.arange(len(digits)) - np.repeat(first, last - first + 1))
    numbers = np.add.reduceat((digits & 31) << shifts, first)
    numbers -= np.where(digits[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    for start in (1, 2):
        numbers[start::2] = np.cumsum(numbers[start::2])
    return numbers


def _short(row: dict[str, Any]) -> str:
    text = str(row)
    return text if len(text) < 100 else text[:100] + "..."
