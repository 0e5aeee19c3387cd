"""Checks of a COCO instances file before it is read: ids, sizes, coordinates."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

_FARTHEST = 1e6  # pixels; sums and areas of what lies beyond fill any memory


def first_problem(content: dict[str, Any]) -> str | None:
    """What makes a file in COCO's instances format unusable, with an example; None if nothing.

    Args:
        content: the file's ``images``, ``annotations`` and ``categories``.
    """
    return next(_problems(content), None)


def unknown_images(content: dict[str, Any]) -> int:
    """How many annotations are of images that the file does not list."""
    known = {image["id"] for image in content["images"]}
    return sum(ann.get("image_id") not in known for ann in content["annotations"])


def _problems(content: dict[str, Any]) -> Iterator[str]:
    for part, keys in (
        ("categories", ("id", "name")),
        ("images", ("id", "file_name", "width", "height")),
        ("annotations", ("id", "image_id", "category_id")),
    ):
        for row in content.get(part) or []:
            for key in keys:
                if key not in row:
                    yield f'{part} has an entry without "{key}": {_short(row)}'
        yield from _repeated(part, content.get(part) or [])
    known = {row["id"] for row in content["categories"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    wrong = [a for a in content["annotations"] if a["category_id"] not in known]
    if wrong:
        yield (
            f"{len(wrong)} annotations have a category_id that categories does not list, e.g. "
            f"annotation {wrong[0]['id']}: {wrong[0]['category_id']!r}"
        )
    for annotation in content["annotations"]:
        problem = _broken_mask(annotation.get("segmentation"), sizes.get(annotation["image_id"]))
        if problem:
            yield f"annotation {annotation['id']} of image {annotation['image_id']}: {problem}"


def _repeated(part: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    for value, count in Counter(row["id"] for row in rows).items():
        if count > 1:
            yield f"{part} has the id {value!r} {count} times"


def _broken_mask(segmentation: Any, size: tuple[int, int] | None) -> str | None:
    if not segmentation or size is None:
        return None
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if tuple(segmentation.get("size", ())) != size:
            return f"its run lengths have the size {segmentation.get('size')}, its image {size}"
        if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
            return f"its run lengths add up to {sum(counts)}, its image has {size[0] * size[1]}"
        return None
    for polygon in segmentation:
        if not isinstance(polygon, list):
            return "its segmentation is no list of polygons [[x, y, x, y, ...], ...]"
        # NaN fails every comparison.
        if not (math.isfinite(sum(polygon)) and max(map(abs, polygon), default=0) <= _FARTHEST):
            return "its outline has coordinates that are not finite, or far outside"
    return None


def _short(row: dict[str, Any]) -> str:
    text = str(row)
    return text if len(text) < 100 else text[:100] + "..."
