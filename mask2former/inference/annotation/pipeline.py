"""Runs a model over the images of a CVAT task and writes its proposals into the task's file."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from detectron2.data import Metadata
from mask2former.data.cvat.document import split_document

from .drawing import draw_proposals, label_colors
from .merging import MergeOptions, MergeReport, merge_image
from .proposals import Proposal, ProposalOptions, proposals_of
from .review import ReviewRow, review_table
from .store import Store, remove_partials, write_atomically
from .work_list import (
    ImageProblem,
    WorkItem,
    load_image,
    plan_batches,
    prediction_paths,
    read_work_list,
)

logger = logging.getLogger(__name__)

# Formats that hold any colour picture; drawings of others are PNGs.
_DRAWN_AS = (
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"
)  # fmt: skip

# What a model raises about single images: no memory, or a size that it cannot work with.
_MODEL_FAILURES = (RuntimeError, MemoryError, ValueError)

Predict = Callable[[list[np.ndarray]], list[dict[str, Any]]]


@dataclass(frozen=True)
class PipelineOptions:
    """How a run works; what it keeps of predictions and how it writes them are options of theirs.

    Attributes:
        batch_size: most images of one size per forward pass.
        num_workers: threads that decode images ahead.
        visuals: draw ``visuals/<image name>``.
        max_pixels: most pixels of a batch, which bounds the memory of full-size masks.
    """

    batch_size: int = 4
    num_workers: int = 4
    visuals: bool = True
    max_pixels: int = 24_000_000


@dataclass
class Summary:
    """What a run did; the same for a run that was interrupted and resumed."""

    images: int = 0
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # key of the image -> why
    merged: MergeReport = field(default_factory=MergeReport)
    without_proposals: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, without anything that changes from run to run."""
        merged = self.merged
        ious = merged.polygon_ious
        return {
            "images": self.images,
            "proposals_added": dict(sorted(merged.added.items())),
            "existing_shapes_kept": merged.kept,
            "existing_shapes_removed": merged.removed,
            "proposals_overlapping_kept_shapes": dict(sorted(merged.overlapping.items())),
            "annotated_images_skipped": merged.skipped,
            "images_without_proposals": self.without_proposals,
            "missing_images": self.missing,
            "failed_images": self.failed,
            **(
                {
                    "polygon_iou": {
                        "mean": round(float(np.mean(ious)), 4),
                        "min": round(min(ious), 4),
                    }
                }
                if ious
                else {}
            ),
        }


class AnnotationPipeline:
    """``images/`` and ``annotations.xml`` in; ``annotations.xml``, ``visuals/``, ``predictions/``,
    ``review.csv`` and ``summary.json`` out.

    Every image's predictions are kept in ``checkpoints/`` as soon as they are made. The output is
    made of them, so a run that was killed and started again writes the same bytes.
    """

    def __init__(
        self,
        input_dir: Path,
        output_dir: Path,
        predict: Predict,
        metadata: Metadata,
        *,
        settings: str,
        proposals: ProposalOptions | None = None,
        merging: MergeOptions | None = None,
        options: PipelineOptions | None = None,
    ) -> None:
        """
        Args:
            input_dir: holds ``images/`` and ``annotations.xml`` (CVAT for images 1.1).
            output_dir: is created.
            predict: BGR images -> outputs of the model, see `mask2former.inference.Predictor`.
            metadata: class names and colours.
            settings: identifies model and options, see `store.fingerprint`; checkpoints of other
                settings are made anew.
        """
        self.input_dir, self.output_dir = Path(input_dir), Path(output_dir)
        self.predict, self.metadata = predict, metadata
        self.proposals = proposals or ProposalOptions()
        self.merging = merging or MergeOptions()
        self.options = options or PipelineOptions()
        self._colors = label_colors(metadata, self.proposals.label_map)
        self.store = Store(self.output_dir / "checkpoints", settings)
        self.annotations = self.input_dir / "annotations.xml"

    def run(self) -> Summary:
        """Does all that is not done yet, then writes the outputs.

        Raises:
            CvatError: the annotation file cannot be used.
            FileNotFoundError: it or the folder of images is not there.
        """
        images = self.input_dir / "images"
        for path in (self.annotations, images):
            if not path.exists():
                raise FileNotFoundError(f"--input_dir {self.input_dir}: {path} does not exist")
        remove_partials(self.output_dir)
        items, missing, count = read_work_list(self.annotations, images)
        summary = Summary(images=count, missing=missing)
        if self.merging.existing == "skip-annotated":
            summary.merged.skipped = sum(item.annotated for item in items)
            items = [item for item in items if not item.annotated]
        self._predict_all(items, summary)
        self._write_outputs(items, summary)
        return summary

    # --- predicting

    def _predict_all(self, items: Sequence[WorkItem], summary: Summary) -> None:
        batches = list(plan_batches(items, self.options.batch_size, self.options.max_pixels))
        todo = [b for b in batches if not all(self._is_done(item) for item in b)]
        done = len(items) - sum(map(len, todo))
        if done:
            logger.info("%d of %d images are done already", done, len(items))
        with tqdm(total=len(items), initial=done, unit="image", desc="predicting") as progress:
            for batch, loaded in self._loaded(todo):
                self._predict_batch(batch, loaded, summary)
                progress.update(len(batch))

    def _is_done(self, item: WorkItem) -> bool:
        drawn = not self.options.visuals or self._visual_path(item).exists()
        return drawn and self.store.has(item.key, item.picture)

    def _loaded(
        self, batches: Sequence[list[WorkItem]]
    ) -> Iterator[tuple[list[WorkItem], list[Future]]]:
        """Batches with their images being decoded, a few batches ahead."""
        with ThreadPoolExecutor(max(self.options.num_workers, 1)) as pool:
            ahead: deque[tuple[list[WorkItem], list[Future]]] = deque()
            for batch in batches:
                ahead.append((batch, [pool.submit(load_image, item) for item in batch]))
                if len(ahead) > 2:
                    yield ahead.popleft()
            yield from ahead

    def _predict_batch(self, batch: list[WorkItem], loaded: list[Future], summary: Summary) -> None:
        images: dict[WorkItem, np.ndarray] = {}
        for item, future in zip(batch, loaded):
            try:
                images[item] = future.result()
            except ImageProblem as problem:
                self._failed(item, str(problem), summary)
        if not images:
            return
        try:
            outputs = self.predict(list(images.values()))
        except _MODEL_FAILURES as error:
            if len(images) > 1:  # one image, or too many at once: try each alone
                for item, image in images.items():
                    self._predict_one(item, image, summary)
            else:
                self._failed(next(iter(images)), f"the model failed: {error}", summary)
            return
        for (item, image), output in zip(images.items(), outputs):
            self._keep(item, image, output)

    def _predict_one(self, item: WorkItem, image: np.ndarray, summary: Summary) -> None:
        try:
            output = self.predict([image])[0]
        except _MODEL_FAILURES as error:
            self._failed(item, f"the model failed: {error}", summary)
        else:
            self._keep(item, image, output)

    def _keep(self, item: WorkItem, image: np.ndarray, output: dict[str, Any]) -> None:
        found, uncertainty = proposals_of(output, self.metadata, self.proposals)
        if self.options.visuals:
            self._draw(item, image, found)
        self.store.save(item.key, item.picture, found, uncertainty)

    def _failed(self, item: WorkItem, why: str, summary: Summary) -> None:
        logger.error("%s: left as it was: %s", item.file, why)
        summary.failed[item.key] = why

    # --- outputs

    def _visual_path(self, item: WorkItem) -> Path:
        path = self.output_dir / "visuals" / item.key
        drawable = path.suffix.lower() in _DRAWN_AS and cv2.haveImageWriter(path.name)
        suffix = path.suffix if drawable else ".png"
        return path if path.suffix == suffix else path.with_name(path.name + suffix)

    def _draw(self, item: WorkItem, image: np.ndarray, found: Sequence[Proposal]) -> None:
        path = self._visual_path(item)
        drawn = draw_proposals(image, found, self._colors, self.proposals.threshold)
        _, encoded = cv2.imencode(path.suffix, drawn)
        write_atomically(path, encoded.tobytes())

    def _write_outputs(self, items: Sequence[WorkItem], summary: Summary) -> None:
        by_number = {item.number: item for item in items if item.key not in summary.failed}
        paths = prediction_paths(items)
        rows, number = [], 0
        target = self.output_dir / "annotations.xml"
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        with open(partial, "wb") as file:
            for piece in split_document(str(self.annotations)):
                data = piece.data
                if piece.is_image:
                    item = by_number.get(number)
                    number += 1
                    finished = self.store.load(item.key, item.picture) if item else None
                    if item and finished is None:
                        raise ValueError(
                            f"{item.file} or {self.store.path(item.key)} changed meanwhile; start "
                            "again to go on"
                        )
                    if item:
                        found = finished.proposals
                        data, report = merge_image(data, found, self.merging)
                        summary.merged.add(report)
                        summary.without_proposals += not found
                        self._write_prediction(paths[item.key], found)
                        scores = [p.score for p in found if p.score is not None]
                        rows.append(
                            ReviewRow(
                                item.name,
                                finished.uncertainty,
                                len(found),
                                min(scores, default=None),
                            )
                        )
                file.write(data)
        self.store.put(partial, target)
        write_atomically(self.output_dir / "review.csv", review_table(rows))
        text = json.dumps(summary.to_json(), indent=2, ensure_ascii=False)
        write_atomically(self.output_dir / "summary.json", text.encode() + b"\n")

    def _write_prediction(self, relative: str, found: Sequence[Proposal]) -> None:
        path = self.output_dir / "predictions" / relative
        if found:
            write_atomically(path, json.dumps([p.to_json() for p in found]).encode())
        else:
            path.unlink(missing_ok=True)  # published: images without proposals have no file
