"""What one segmented image gives: overlay, legend, table, and files to take away."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from mask2former.data.cvat.document import split_document
from mask2former.data.cvat.writing import new_document
from mask2former.inference.annotation import MergeOptions, Proposal, merge_image
from mask2former.inference.annotation.drawing import draw_proposals, proposal_colors

# Smaller images are drawn several times larger: names would hide their objects.
_LEAST_SIDE = 600
_LARGEST_SIDE = 4096  # of an enlarged drawing; images of one row would fill any memory
TABLE_HEAD = ["", "class", "score", "pixels", "share of the image"]


@dataclass(frozen=True)
class Result:
    """One image, segmented.

    Attributes:
        image: uint8 [H, W, 3], BGR, turned as its EXIF says.
        name: its file name.
        task, threshold, model_name: how it was made.
        proposals: what is shown, best first where there are scores.
        colors: class -> RGB.
        labels: classes that could have been found.
        note: what else people should know about it.
    """

    image: np.ndarray
    name: str
    task: str
    threshold: float
    proposals: Sequence[Proposal]
    colors: Mapping[str, Sequence[int]]
    labels: Sequence[str]
    model_name: str = ""
    note: str = ""

    @property
    def summary(self) -> str:
        """One sentence: how many of what."""
        height, width = self.image.shape[:2]
        count = len(self.proposals)
        kind = {"instance": "object", "panoptic": "segment", "semantic": "region"}[self.task]
        found = f"{count or 'no'} {kind}{'' if count == 1 else 's'}"
        hint = "" if count or self.task == "semantic" else " (try a lower threshold)"
        note = f". {self.note}" if self.note else ""
        return f"{self.name}, {width} x {height} pixels: {found}{hint}{note}"

    def overlay(self, opacity: float) -> np.ndarray:
        """The segments drawn over the image, uint8 RGB; a whole multiple of the image's size."""
        least, largest = sorted(self.image.shape[:2])
        scale = max(1, min(-(-_LEAST_SIDE // least), _LARGEST_SIDE // largest))
        drawn = draw_proposals(
            self.image, self.proposals, self.colors, opacity=opacity, scale=scale
        )
        return np.ascontiguousarray(drawn[:, :, ::-1])

    def legend(self) -> str:
        """HTML: the classes that are there with their colours and how often."""
        counts: dict[str, int] = {}
        for proposal in self.proposals:
            counts[proposal.label] = counts.get(proposal.label, 0) + 1
        items = "".join(
            f'<span class="item">{_swatch(self.colors.get(name, (255, 255, 255)))} '
            f"{html.escape(name)}{f' ({n})' if n > 1 else ''}</span>"
            for name, n in counts.items()
        )
        return f'<div class="summary">{html.escape(self.summary)}</div><div>{items}</div>'

    def table(self) -> list[list[str]]:
        """One row a segment, under `TABLE_HEAD`; the first cell is HTML."""
        rows = []
        colors = proposal_colors(self.proposals, self.colors)
        for proposal, color, area in zip(self.proposals, colors, self._areas):
            score = "" if proposal.score is None else f"{proposal.score:.3f}"
            share = area / (self.image.shape[0] * self.image.shape[1])
            label = html.escape(proposal.label)
            rows.append([_swatch(color), label, score, str(area), f"{share:.1%}"])
        return rows

    def write_files(self, folder: Path, opacity: float) -> list[str]:
        """Writes ``<stem>_<task>.png``, ``.json`` and ``.xml``; returns the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^\w.-]+", "_", Path(self.name).stem) or "image"
        paths = [folder / f"{stem}_{self.task}.{suffix}" for suffix in ("png", "json", "xml")]
        _, png = cv2.imencode(".png", self.overlay(opacity)[:, :, ::-1])
        paths[0].write_bytes(png.tobytes())
        paths[1].write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False), "utf-8")
        paths[2].write_bytes(self.to_cvat(paths[2]))
        return [str(path) for path in paths]

    def to_json(self) -> dict:
        """Plain values; masks as in CVAT: a box and row-major run lengths, background first."""
        height, width = self.image.shape[:2]
        segments = [
            {**proposal.to_json(), "area": area}
            for proposal, area in zip(self.proposals, self._areas)
        ]
        return {
            "image": self.name,
            "width": width,
            "height": height,
            "task": self.task,
            "threshold": self.threshold,
            "model": self.model_name,
            "segments": segments,
        }

    def to_cvat(self, scratch: Path) -> bytes:
        """A "CVAT for images 1.1" file for a task with this image; ``scratch`` is overwritten."""
        height, width = self.image.shape[:2]
        scratch.write_bytes(new_document([(self.name, width, height)], self.labels))
        pieces = []
        for piece in split_document(str(scratch)):
            data = piece.data
            if piece.is_image:
                data, _ = merge_image(data, self.proposals, MergeOptions())
            pieces.append(data)
        return b"".join(pieces)

    @cached_property
    def _areas(self) -> list[int]:
        return [sum(proposal.mask.counts[1::2]) for proposal in self.proposals]


def _swatch(color: Sequence[int]) -> str:
    red, green, blue = (int(c) for c in color)
    return (
        f'<span style="display:inline-block;width:1.1em;height:1.1em;border-radius:3px;'
        f'vertical-align:-0.15em;background:rgb({red},{green},{blue})"></span>'
    )
