"""Checks of the annotations of one record: masks, boxes, labels, duplicates."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from detectron2.structures import BoxMode
from mask2former.data.dataset_mappers.reading import DECODE_FAILURES

from .findings import Findings, Severity

TINY = 16  # pixels


@dataclass
class RecordCounts:
    """What a record contributes to the survey: objects per class and in the image."""

    objects: int = 0
    classes: Counter = field(default_factory=Counter)


def check_instances(
    record: dict[str, Any], size: tuple[int, int], findings: Findings
) -> RecordCounts:
    """Instance annotations: empty and tiny masks, boxes outside, duplicates.

    Args:
        record: detectron2's, with ``annotations``.
        size: width and height of the image as shown.
    """
    counts, seen = RecordCounts(), Counter()
    width, height = size
    name = record["file_name"]
    for annotation in record.get("annotations", []):
        if annotation.get("iscrowd"):
            continue
        counts.objects += 1
        counts.classes[annotation["category_id"]] += 1
        area = _area(annotation.get("segmentation"), width, height)
        if area is None:
            findings.add(
                "no-mask",
                Severity.ERROR,
                "objects have a box but no mask",
                "draw masks, or remove these objects; boxes cannot train segmentation",
                name,
            )
        elif area < 1:
            findings.add(
                "empty-mask",
                Severity.WARNING,
                "masks without a pixel",
                "delete them in the labelling tool; training leaves them out",
                name,
            )
        elif area < TINY:
            findings.add(
                "tiny-mask",
                Severity.INFO,
                f"masks of fewer than {TINY} pixels",
                "check for stray clicks; such objects vanish at the size the network works at",
                name,
            )
        x0, y0, x1, y1 = BoxMode.convert(
            [float(v) for v in annotation["bbox"]], annotation["bbox_mode"], BoxMode.XYXY_ABS
        )
        if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1:
            findings.add(
                "box-outside",
                Severity.WARNING,
                "boxes reach outside their image",
                "check that annotations and images belong together (resized or turned images?)",
                f"{name}: box {x0:.0f},{y0:.0f},{x1:.0f},{y1:.0f} in {width}x{height}",
            )
        box = tuple(round(v) for v in (x0, y0, x1, y1))
        seen[annotation["category_id"], *box, round(area or 0)] += 1
    repeated = sum(n - 1 for n in seen.values())
    if repeated:
        findings.add(
            "duplicate-annotation",
            Severity.WARNING,
            "objects annotated twice (same class, box and area)",
            "delete the copies: they teach the model to predict everything twice",
            name,
            count=repeated,
        )
    return counts


def check_panoptic(record: dict[str, Any], findings: Findings) -> RecordCounts:
    """Panoptic annotations: the PNG exists, and has the segments that the file lists."""
    counts = RecordCounts()
    name = record["pan_seg_file_name"]
    try:
        with Image.open(name) as image:
            rgb = np.asarray(image.convert("RGB")).astype(np.int64)
    except DECODE_FAILURES as error:
        findings.add(
            "unreadable-label",
            Severity.ERROR,
            "panoptic PNGs are missing or cannot be decoded",
            "check the folder of PNGs (MASKS)",
            f"{name}: {error}",
        )
        return counts
    found = set(np.unique(rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]).tolist())
    listed = {segment["id"] for segment in record["segments_info"]}
    for segment in record["segments_info"]:
        if not segment.get("iscrowd"):
            counts.objects += 1
            counts.classes[segment["category_id"]] += 1
    if listed - found:
        findings.add(
            "empty-mask",
            Severity.WARNING,
            "segments are listed that their PNG does not have",
            "write the PNG and the json from the same source; ids are R + 256 G + 65536 B",
            name,
            count=len(listed - found),
        )
    if found - listed - {0}:
        findings.add(
            "unlisted-segment",
            Severity.WARNING,
            "PNGs have segments that the json does not list; they count as void",
            "write the PNG and the json from the same source",
            name,
            count=len(found - listed - {0}),
        )
    return counts


def check_semantic(
    record: dict[str, Any], size: tuple[int, int], classes: int, ignore: int, findings: Findings
) -> RecordCounts:
    """Label images: readable, of the image's size, with known ids."""
    counts = RecordCounts()
    name = record["sem_seg_file_name"]
    try:
        with Image.open(name) as image:
            labels = np.asarray(image)
    except DECODE_FAILURES as error:
        findings.add(
            "unreadable-label",
            Severity.ERROR,
            "label images cannot be decoded",
            "write them again, or remove them together with their images",
            f"{name}: {error}",
        )
        return counts
    if labels.shape[1::-1] != tuple(size):
        findings.add(
            "label-size",
            Severity.ERROR,
            "label images of another size than their image",
            "scale label images with nearest neighbour to the size of the image",
            f"{name}: {labels.shape[1]}x{labels.shape[0]}, image {size[0]}x{size[1]}",
        )
    values, areas = np.unique(labels, return_counts=True)
    for value, area in zip(values.tolist(), areas.tolist()):
        if value == ignore:
            continue
        if value >= classes or value < 0:
            findings.add(
                "unknown-label",
                Severity.ERROR,
                f"label images have ids other than 0..{classes - 1} and {ignore} (ignore)",
                "name all classes with --classes, or map the ids",
                f"{name}: id {value}, {area} pixels",
            )
        else:
            counts.objects += 1
            counts.classes[value] += 1
    return counts


def _area(segmentation: Any, width: int, height: int) -> float | None:
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return float(mask_util.area(segmentation))
    if isinstance(segmentation, np.ndarray):
        return float((segmentation != 0).sum())
    coded = mask_util.frPyObjects(segmentation, height, width)
    return float(mask_util.area(mask_util.merge(coded)))
