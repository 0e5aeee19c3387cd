"""From a model's output to labelled masks, for models of all three tasks."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from detectron2.data import Metadata
from mask2former.data.cvat import CvatMask, decode_mask, encode_mask
from mask2former.modeling.postprocessing import LabelScores

TASKS = ("instance", "panoptic", "semantic")
_OUTPUTS = {"instance": "instances", "panoptic": "panoptic_seg", "semantic": "sem_seg"}


@dataclass(frozen=True)
class Proposal:
    """One predicted object or region.

    Attributes:
        label: its class name.
        mask: where it is.
        score: confidence in [0, 1]; None where the task gives none (panoptic, semantic).
    """

    label: str
    mask: CvatMask
    score: float | None = None

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Its mask, [height, width] bool."""
        return decode_mask(self.mask, height, width)

    def to_json(self) -> dict[str, Any]:
        """The published keys (label, rle, left, top, width, height), and the score."""
        mask = asdict(self.mask)
        del mask["counts"]
        score = {} if self.score is None else {"score": self.score}
        return {"label": self.label, "rle": self.mask.rle, **mask, **score}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Proposal":
        """The inverse of `to_json`."""
        counts = tuple(int(v) for v in entry["rle"].split(","))
        box = (entry[key] for key in ("left", "top", "width", "height"))
        return cls(entry["label"], CvatMask(counts, *box), entry.get("score"))


@dataclass(frozen=True)
class ProposalOptions:
    """What is kept of a prediction.

    Attributes:
        task: "instance", "panoptic", "semantic", or "auto": the first of them the model gives.
        threshold: least score of an instance.
        class_thresholds: other thresholds for some labels.
        max_per_image: most proposals an image, best first; 0: no limit.
        label_map: class name of the model -> label of the CVAT task.
        min_area: pixels; smaller masks are left out.
    """

    task: str = "auto"
    threshold: float = 0.5
    class_thresholds: Mapping[str, float] = field(default_factory=dict)
    max_per_image: int = 0
    label_map: Mapping[str, str] = field(default_factory=dict)
    min_area: int = 1


def proposals_of(
    output: Mapping[str, Any], metadata: Metadata, options: ProposalOptions
) -> tuple[list[Proposal], float]:
    """What a model says about one image.

    Args:
        output: the model's output for it: ``instances``, ``panoptic_seg`` and/or ``sem_seg``, at
            the size of the image.
        metadata: class names.
        options: what is kept.

    Returns:
        proposals, best first where there are scores; and how unsure the model is, in [0, 1]:

        * instance: mean of 1 - |2 s - 1| over the instances with a score s of at least 0.1: 1 for
          scores of a half, 0 where all are certain or nothing was found,
        * panoptic: share of pixels without a segment,
        * semantic: mean over pixels of 1 - share of the best class in the sum of all scores; NaN
          of compact outputs, which have labels only.

    Raises:
        ValueError: the model does not give the task that was asked for.
    """
    task = choose_task(output, options.task)
    names = class_names(metadata, task)
    if task == "instance":
        known = predictable_classes(metadata, task)
        found, unsure = _instances(output["instances"], names, known, options)
    elif task == "panoptic":
        found, unsure = _panoptic(*output["panoptic_seg"], names)
    else:
        found, unsure = _semantic(output["sem_seg"], names)
    found = [
        Proposal(options.label_map.get(p.label, p.label), p.mask, p.score)
        for p in found
        if sum(p.mask.counts[1::2]) >= options.min_area
    ]
    return found[: options.max_per_image or None], unsure


def choose_task(output: Mapping[str, Any], task: str) -> str:
    """The task to take from an output.

    Raises:
        ValueError: the output does not have it.
    """
    given = [t for t in TASKS if _OUTPUTS[t] in output]
    if task == "auto":
        if not given:
            raise ValueError(f"the model gives none of {', '.join(TASKS)}: switch one on in TEST")
        return given[0]
    if task not in given:
        raise ValueError(
            f"the model gives {', '.join(given)} output, not {task}: set "
            f"MODEL.MASK_FORMER.TEST.{task.upper()}_ON True"
        )
    return task


def class_names(metadata: Metadata, task: str) -> list[str]:
    """Names by contiguous id.

    Sets with stuff list every class in ``stuff_classes`` (some name only the things in
    ``thing_classes``, whose ids are still positions in the whole list).
    """
    things, stuff = metadata.get("thing_classes") or [], metadata.get("stuff_classes") or []
    names = (things or stuff) if task == "instance" and len(things) >= len(stuff) else stuff
    return list(names or things)


def predictable_classes(metadata: Metadata, task: str) -> set[str]:
    """Names that a task can give: of a panoptic set's classes, only things are instances."""
    names = class_names(metadata, task)
    things = metadata.get("thing_dataset_id_to_contiguous_id")
    if task != "instance" or not things:
        return set(names)
    return {names[i] for i in things.values() if i < len(names)}


def _name(names: list[str], index: int) -> str:
    return names[index] if index < len(names) else f"class_{index}"


def _instances(
    instances: Any, names: list[str], known: set[str], options: ProposalOptions
) -> tuple[list[Proposal], float]:
    scores = instances.scores.float().cpu().numpy()
    classes = instances.pred_classes.cpu().numpy()
    candidates = scores[scores >= 0.1]
    unsure = float(np.mean(1 - np.abs(2 * candidates - 1))) if len(candidates) else 0.0
    found = []
    for index in np.argsort(-scores, kind="stable"):
        name = _name(names, int(classes[index]))
        if names and name not in known:
            continue
        if scores[index] < options.class_thresholds.get(name, options.threshold):
            continue
        coded = encode_mask((instances.pred_masks[int(index)] > 0.5).cpu().numpy())
        if coded is not None:
            found.append(Proposal(name, coded, round(float(scores[index]), 4)))
    return found, unsure


def _panoptic(
    ids: torch.Tensor, segments: list[dict[str, Any]], names: list[str]
) -> tuple[list[Proposal], float]:
    ids = ids.cpu().numpy()
    found = []
    for segment in segments:
        coded = encode_mask(ids == segment["id"])
        if coded is not None:
            found.append(Proposal(_name(names, segment["category_id"]), coded))
    return found, float((ids == 0).mean())


def _semantic(scores: torch.Tensor | LabelScores, names: list[str]) -> tuple[list[Proposal], float]:
    if isinstance(scores, LabelScores):
        labels, unsure = scores.argmax(dim=0), math.nan
    else:
        best, labels = scores.max(dim=0)
        total = scores.sum(dim=0).clamp(min=1e-6)
        unsure = float((1 - best / total).mean())
    labels = labels.cpu().numpy()
    found = [
        Proposal(_name(names, int(label)), encode_mask(labels == label))
        for label in np.unique(labels)
    ]
    return found, unsure
