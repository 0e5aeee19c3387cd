"""What becomes of the shapes that an image already has when predictions are added."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from mask2former.data.cvat import Shape
from mask2former.data.cvat.document import NewShape, edit_image, read_image
from mask2former.data.cvat.reading import CvatImage

from .polygons import mask_to_polygons, overlap, polygons_to_mask
from .proposals import Proposal

logger = logging.getLogger(__name__)

EXISTING_POLICIES = ("keep", "replace-auto", "replace-all", "skip-annotated")

# Sources that say a machine drew the shape: CVAT's own, and the published pipeline's.
AUTOMATIC = ("auto", "semi-auto")


@dataclass(frozen=True)
class MergeOptions:
    """How predictions are written and what gives way to them.

    Attributes:
        existing: one of `EXISTING_POLICIES`. "keep" leaves every shape; "replace-auto" removes
            those whose source is automatic; "replace-all" removes all drawn shapes; in images with
            any shape, "skip-annotated" adds nothing. Tags and unknown elements always stay.
        max_overlap: a proposal whose IoU with a kept shape of the same label is above this is
            left out; 1 keeps all.
        shape: "mask" or "polygon".
        tolerance: polygons: error of the simplification in pixels.
        least_part: polygons: parts below this share of the largest part's area are left out.
        z_order: "score": better proposals lie on top; "zero": all at 0, as published.
        source: the attribute ``source`` of new shapes.
        score_attribute, model_attribute: label -> name of the attribute that takes the score or
            the model's name, for labels that declare one.
        model_name: written to ``model_attribute``.
    """

    existing: str = "keep"
    max_overlap: float = 0.5
    shape: str = "mask"
    tolerance: float = 1.0
    least_part: float = 0.05
    z_order: str = "score"
    source: str = "semi-auto"
    score_attribute: dict[str, str] = field(default_factory=dict)
    model_attribute: dict[str, str] = field(default_factory=dict)
    model_name: str = ""


@dataclass
class MergeReport:
    """Counts of one or many images; `add` sums them."""

    added: Counter = field(default_factory=Counter)  # by label
    kept: int = 0
    removed: int = 0
    overlapping: Counter = field(default_factory=Counter)  # proposals left out, by label
    skipped: int = 0  # images left alone because they are annotated
    polygon_ious: list[float] = field(default_factory=list)

    def add(self, other: "MergeReport") -> None:
        self.added += other.added
        self.kept += other.kept
        self.removed += other.removed
        self.overlapping += other.overlapping
        self.skipped += other.skipped
        self.polygon_ious += other.polygon_ious


def merge_image(
    piece: bytes, proposals: Sequence[Proposal], options: MergeOptions
) -> tuple[bytes, MergeReport]:
    """Adds proposals to an image element.

    Args:
        piece: the element's bytes, see `mask2former.data.cvat.document`.
        proposals: best first.
        options: see there.

    Returns:
        the new bytes (the same ones where nothing changes) and what was done.
    """
    image = read_image(piece)
    report = MergeReport()
    if options.existing == "skip-annotated" and image.shapes:
        report.skipped, report.kept = 1, len(image.shapes)
        return piece, report
    kept = [s for s in image.shapes if not _gives_way(s, options.existing)]
    report.kept, report.removed = len(kept), len(image.shapes) - len(kept)
    chosen = _without_overlaps(proposals, kept, image, options, report)
    new = []
    for rank, proposal in enumerate(chosen):
        z_order = len(chosen) - 1 - rank if options.z_order == "score" else 0
        new += _shapes(proposal, z_order, image.height, image.width, options, report)
        report.added[proposal.label] += 1
    edited = edit_image(
        piece, remove=lambda index, shape: _gives_way(shape, options.existing), add=new
    )
    return edited, report


def shape_pixels(shape: Shape, height: int, width: int) -> np.ndarray | None:
    """The area of a shape, [height, width] bool; None for points and lines, which have none.

    Raises:
        ValueError: its coordinates or run lengths are broken.
    """
    if shape.kind == "mask":
        return shape.mask(height, width)
    if shape.kind in ("polygon", "box"):
        outline = shape.polygon()
        return polygons_to_mask([outline], height, width) if len(outline) > 2 else None
    if shape.kind == "ellipse":
        cx, cy, rx, ry = (shape.number(k) for k in ("cx", "cy", "rx", "ry"))
        mask = np.zeros((height, width), dtype=np.uint8)
        angle = float(shape.attributes.get("rotation", 0))
        cv2.ellipse(mask, ((cx, cy), (2 * rx, 2 * ry), angle), 1, thickness=-1)
        return mask.astype(bool)
    return None


def readable_pixels(shape: Shape, image: CvatImage) -> np.ndarray | None:
    """`shape_pixels`; None, with a warning, of a broken shape: it costs no other."""
    try:
        return shape_pixels(shape, image.height, image.width)
    except ValueError as error:
        logger.warning(
            "image %s: a %s with label %s is compared with nothing: %s",
            image.name, shape.kind, shape.label, error,
        )  # fmt: skip
        return None


def _gives_way(shape: Shape, existing: str) -> bool:
    if existing == "replace-all":
        return True
    return existing == "replace-auto" and shape.source.lower() in AUTOMATIC


def _without_overlaps(
    proposals: Sequence[Proposal],
    kept: Sequence[Shape],
    image: CvatImage,
    options: MergeOptions,
    report: MergeReport,
) -> list[Proposal]:
    labels = {p.label for p in proposals}
    areas: dict[str, list[np.ndarray]] = {}
    for shape in kept:
        if shape.label in labels and options.max_overlap < 1:
            pixels = readable_pixels(shape, image)
            if pixels is not None:
                areas.setdefault(shape.label, []).append(pixels)
    chosen = []
    for proposal in proposals:
        rivals = areas.get(proposal.label)
        if rivals:
            pixels = proposal.pixels(image.height, image.width)
            if any(overlap(pixels, rival) > options.max_overlap for rival in rivals):
                report.overlapping[proposal.label] += 1
                continue
        chosen.append(proposal)
    return chosen


def _shapes(
    proposal: Proposal,
    z_order: int,
    height: int,
    width: int,
    options: MergeOptions,
    report: MergeReport,
) -> list[NewShape]:
    values = {}
    if proposal.score is not None and proposal.label in options.score_attribute:
        values[options.score_attribute[proposal.label]] = f"{proposal.score:.4f}"
    if options.model_name and proposal.label in options.model_attribute:
        values[options.model_attribute[proposal.label]] = options.model_name
    head = {"label": proposal.label, "source": options.source, "occluded": "0"}
    tail = {"z_order": str(z_order)}
    if options.shape == "mask":
        return [NewShape("mask", {**head, **proposal.mask.attributes, **tail}, values)]
    pixels = proposal.pixels(height, width)
    polygons = mask_to_polygons(pixels, options.tolerance, options.least_part)
    report.polygon_ious.append(overlap(pixels, polygons_to_mask(polygons, height, width)))
    return [
        NewShape("polygon", {**head, "points": _points(polygon), **tail}, values)
        for polygon in polygons
    ]


def _points(polygon: np.ndarray) -> str:
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in polygon)
