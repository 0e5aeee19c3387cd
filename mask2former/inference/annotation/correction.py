"""What people did to proposals: accepted, changed, deleted, added."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from scipy.optimize import linear_sum_assignment

from mask2former.data.cvat import Shape, iterate_images
from mask2former.data.cvat.reading import CvatImage

from .merging import AUTOMATIC, readable_pixels

logger = logging.getLogger(__name__)

OUTCOMES = ("accepted", "reshaped", "relabelled", "deleted", "added")


@dataclass
class LabelReport:
    """Counts of one label; ``ious`` of proposals with the shapes they became."""

    counts: Counter = field(default_factory=Counter)
    ious: list[float] = field(default_factory=list)

    @property
    def proposals(self) -> int:
        """Shapes that a machine had drawn."""
        return sum(self.counts[o] for o in OUTCOMES if o != "added")

    def to_json(self) -> dict[str, Any]:
        """Counts, and the mean IoU of what was kept in some form (None if nothing was)."""
        mean = round(float(np.mean(self.ious)), 4) if self.ious else None
        return {"proposals": self.proposals, **{o: self.counts[o] for o in OUTCOMES}, "iou": mean}


@dataclass
class CorrectionReport:
    """Per label (relabelled proposals count for the label they had), and lone images."""

    labels: dict[str, LabelReport] = field(default_factory=lambda: defaultdict(LabelReport))
    images: int = 0
    only_before: list[str] = field(default_factory=list)
    only_after: list[str] = field(default_factory=list)

    @property
    def total(self) -> LabelReport:
        """All labels together."""
        total = LabelReport()
        for report in self.labels.values():
            total.counts += report.counts
            total.ious += report.ious
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "images": self.images,
            "labels": {name: report.to_json() for name, report in sorted(self.labels.items())},
            "total": self.total.to_json(),
            "images_only_before": self.only_before,
            "images_only_after": self.only_after,
        }


def compare(
    before: str,
    after: str,
    *,
    sources: Sequence[str] = AUTOMATIC,
    same: float = 0.5,
    unchanged: float = 0.98,
) -> CorrectionReport:
    """Compares a task as the pipeline wrote it with its export after people worked on it.

    Shapes are paired image by image so that the sum of their overlaps is largest. A pair with an
    IoU of at least ``unchanged`` and one label is accepted; with another label it is relabelled;
    with an IoU of at least ``same`` it is reshaped. Proposals without a partner were deleted,
    shapes without one added. Shapes that people had drawn before are paired first and left out.
    Shapes without a pixel in their image (points, lines, those outside it) count nowhere.

    Args:
        before, after: CVAT for images 1.1 files.
        sources: of shapes in ``before`` that a machine drew.
        same: least IoU of a shape and what it became.
        unchanged: IoU from which nobody changed it (CVAT rounds coordinates).

    Raises:
        CvatError, FileNotFoundError: a file cannot be used.
    """
    report = CorrectionReport()
    corrected = {(image.subset, image.name): image for image in iterate_images(after)}
    # Exports of tasks say no subset, those of projects do.
    by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key in corrected:
        by_name[key[1]].append(key)
    for image in iterate_images(before):
        key = (image.subset, image.name)
        others = by_name[image.name]
        if key not in corrected and len(others) == 1 and "" in (image.subset, others[0][0]):
            key = others[0]
        partner = corrected.pop(key, None)
        if partner is None:
            report.only_before.append(image.name)
            continue
        if image.problem or partner.problem:
            logger.warning(
                "image %s is left out: %s", image.title, image.problem or partner.problem
            )
            continue
        report.images += 1
        _compare_image(image, partner, report, set(sources), same, unchanged)
    report.only_after = [image.name for image in corrected.values()]
    return report


def _compare_image(
    before: CvatImage,
    after: CvatImage,
    report: CorrectionReport,
    sources: set[str],
    same: float,
    unchanged: float,
) -> None:
    human = _Areas((s for s in before.shapes if s.source.lower() not in sources), before)
    proposed = _Areas((s for s in before.shapes if s.source.lower() in sources), before)
    result = _Areas(after.shapes, after)
    taken = {j for _, j, _ in _pairs(human, result, unchanged)}
    result = result.without(taken)

    pairs = _pairs(proposed, result, same)
    for i, j, iou in pairs:
        label = proposed.shapes[i].label
        if label != result.shapes[j].label:
            outcome = "relabelled"
        else:
            outcome = "accepted" if iou >= unchanged else "reshaped"
        report.labels[label].counts[outcome] += 1
        report.labels[label].ious.append(iou)
    kept, used = {i for i, _, _ in pairs}, {j for _, j, _ in pairs}
    for i, shape in enumerate(proposed.shapes):
        if i not in kept:
            report.labels[shape.label].counts["deleted"] += 1
    for j, shape in enumerate(result.shapes):
        if j not in used:
            report.labels[shape.label].counts["added"] += 1


class _Areas:
    """Shapes that have an area, with their masks coded for fast overlaps."""

    def __init__(self, shapes: Iterable[Shape], image: CvatImage) -> None:
        self.shapes, self.coded = [], []
        for shape in shapes:
            pixels = readable_pixels(shape, image)
            if pixels is not None and pixels.any():
                self.shapes.append(shape)
                self.coded.append(mask_util.encode(np.asfortranarray(pixels, dtype=np.uint8)))

    def without(self, taken: set[int]) -> "_Areas":
        left = [i for i in range(len(self.shapes)) if i not in taken]
        self.shapes = [self.shapes[i] for i in left]
        self.coded = [self.coded[i] for i in left]
        return self


def _pairs(a: _Areas, b: _Areas, least: float) -> list[tuple[int, int, float]]:
    if not a.shapes or not b.shapes:
        return []
    ious = np.asarray(mask_util.iou(a.coded, b.coded, [0] * len(b.coded)))
    # Of equal overlaps the one with the same label wins.
    labels = np.array([[s.label == t.label for t in b.shapes] for s in a.shapes])
    rows, columns = linear_sum_assignment(-(np.where(ious >= least, ious, 0) + 1e-3 * labels))
    return [(i, j, float(ious[i, j])) for i, j in zip(rows, columns) if ious[i, j] >= least]
