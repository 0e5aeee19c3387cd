"""Reads one record of a data set as training would, and says what is wrong with it."""

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from ..dataset_mappers.reading import (
    ImageDecodeError,
    read_image,
    read_label_map,
    read_panoptic_ids,
)
from .sets import IdNames


@dataclass
class Finding:
    """What one record holds.

    Attributes:
        problems: sentences that begin with the file name.
        objects: class name -> number of objects or segments.
        pixels: class name -> pixels, of label maps and panoptic maps.
        annotated: whether anything at all is annotated.
    """

    problems: list[str] = field(default_factory=list)
    objects: Counter = field(default_factory=Counter)
    pixels: Counter = field(default_factory=Counter)
    annotated: bool = False


def examine(record: dict[str, Any], names: IdNames, ignore_label: int | None) -> Finding:
    """Decodes the image and every annotation of a record.

    Args:
        record: detectron2's standard dict, with ``file_name``.
        names: the classes; ids are not checked against an empty list.
        ignore_label: value of label maps that means nothing.
    """
    finding = Finding()
    try:
        image = read_image(record["file_name"], "RGB")
    except ImageDecodeError as error:
        finding.problems.append(str(error))
        finding.annotated = True  # nobody knows
        return finding
    size = image.shape[:2]
    stated = (record.get("height", size[0]), record.get("width", size[1]))
    if tuple(stated) != size:
        finding.problems.append(
            f"{record['file_name']} is {size[1]}x{size[0]} but annotated as "
            f"{stated[1]}x{stated[0]} (width x height)"
        )
    try:
        if "pan_seg_file_name" in record:
            _panoptic(record, size, names, finding)
        if "sem_seg_file_name" in record:
            _semantic(record, size, names.stuff, ignore_label, finding)
    except (ImageDecodeError, ValueError) as error:
        finding.problems.append(str(error))
        finding.annotated = True
    if "annotations" in record:
        _instances(record, size, names.things, finding)
    return finding


def _semantic(
    record: dict, size: tuple[int, int], names: list[str], ignore_label: int | None, out: Finding
) -> None:
    labels = read_label_map(record["sem_seg_file_name"], size)
    values, pixels = np.unique(labels, return_counts=True)
    unknown = []
    for value, count in zip(values.tolist(), pixels.tolist()):
        if value == ignore_label:
            continue
        if names and not 0 <= value < len(names):
            unknown.append(value)
        elif "pan_seg_file_name" not in record:  # which says the same: pixels are counted once
            out.pixels[_name(names, value)] += count
            out.annotated = True
    if unknown:
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if unknown[5:] else "")
        out.problems.append(
            f"{record['sem_seg_file_name']} has labels {shown}: neither a class "
            f"(0..{len(names) - 1}) nor the ignore label {ignore_label}"
        )


def _panoptic(record: dict, size: tuple[int, int], names: IdNames, out: Finding) -> None:
    file = record["pan_seg_file_name"]
    values, pixels = np.unique(read_panoptic_ids(file, size), return_counts=True)
    drawn = dict(zip(values.tolist(), pixels.tolist()))
    drawn.pop(0, None)
    for segment in record["segments_info"]:
        count = drawn.pop(segment["id"], 0)
        if not count:
            out.problems.append(f"{file} has no pixel of segment {segment['id']}")
            continue
        out.annotated = True
        if not segment.get("iscrowd", 0):
            of = names.things if segment.get("isthing", True) else names.stuff
            out.objects[_name(of, segment["category_id"])] += 1
            out.pixels[_name(of, segment["category_id"])] += count
    if drawn:
        out.problems.append(
            f"{file} has {len(drawn)} segment ids that its json does not list (first: "
            f"{next(iter(drawn))})"
        )


def _instances(record: dict, size: tuple[int, int], names: list[str], out: Finding) -> None:
    for position, annotation in enumerate(record["annotations"]):
        where = f"{record['file_name']}, annotation {annotation.get('id', position)}"
        category = annotation["category_id"]
        if names and not 0 <= category < len(names):
            out.problems.append(f"{where}: category {category} is outside 0..{len(names) - 1}")
            continue
        out.annotated = True
        if annotation.get("iscrowd", 0):
            continue
        out.objects[_name(names, category)] += 1
        problem = _outline_problem(annotation.get("segmentation"), size)
        if problem:
            out.problems.append(f"{where}: {problem}")


def _name(names: list[str], number: int) -> str:
    return names[number] if 0 <= number < len(names) else f"class {number}"


def _outline_problem(outline: Any, size: tuple[int, int]) -> str:
    """Why a segmentation cannot be used; "" where it can."""
    if outline is None or (isinstance(outline, list) and not outline):
        return "no segmentation"
    if isinstance(outline, list):
        if any(len(part) < 6 or len(part) % 2 for part in outline):
            return "a polygon with fewer than three corners or an odd number of values"
        return ""
    if isinstance(outline, dict):
        if tuple(outline["size"]) != size:
            return f"run lengths of size {outline['size']} in an image of {list(size)}"
        if isinstance(outline["counts"], list):
            return (
                "" if sum(outline["counts"]) == size[0] * size[1] else "run lengths do not add up"
            )
        return "" if mask_util.area(outline) else "an empty mask"
    return f"a segmentation of type {type(outline).__name__}"


def missing_files(record: dict[str, Any]) -> list[str]:
    """Files that a record names and that do not exist."""
    keys = ("file_name", "sem_seg_file_name", "pan_seg_file_name")
    return [record[k] for k in keys if k in record and not os.path.exists(record[k])]
