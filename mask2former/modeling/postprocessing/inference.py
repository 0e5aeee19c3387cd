"""From class and mask logits to the outputs of the three tasks, for a whole batch."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..mask_predictions import at_least_float32
from .instance import InstanceTask
from .panoptic import PanopticTask
from .resize import Frame, Size, strips
from .semantic import SemanticLabelTask, SemanticTask

Task = SemanticTask | SemanticLabelTask | PanopticTask | InstanceTask


@dataclass(frozen=True)
class Settings:
    """What to predict, and how.

    Attributes:
        semantic, panoptic, instance: the tasks.
        object_mask_threshold: panoptic: class probability a query must exceed.
        overlap_threshold: panoptic: see :class:`~.panoptic.PanopticTask`.
        topk: instance: most (query, class) pairs per image.
        things: contiguous ids of thing classes.
        only_things: instance: leave out pairs whose class is stuff (published: beside panoptic).
        compact: labels instead of class scores, bool masks: memory that does not grow with the
            number of classes, and less of it.
    """

    semantic: bool = False
    panoptic: bool = False
    instance: bool = False
    object_mask_threshold: float = 0.0
    overlap_threshold: float = 0.0
    topk: int = 100
    things: Collection[int] = field(default_factory=frozenset)
    only_things: bool = False
    compact: bool = False


@torch.no_grad()
def segment(
    logits: Tensor,
    masks: Tensor,
    frames: list[Frame | None],
    settings: Settings,
    resized: list[Size] | None = None,
) -> list[dict]:
    """Runs the tasks.

    Queries are chosen for the whole batch with one copy to the host; full-size masks are made of
    the chosen ones only and a strip of rows at a time, which all tasks of an image share; the
    areas that decide about panoptic segments are a second copy.

    Args:
        logits: class logits [B, Q, K + 1].
        masks: mask logits [B, Q, h, w].
        frames: where each image's masks go; None leaves them at their size.
        resized: semantic: resize the scores, not the masks, from there to these sizes.

    Returns:
        Per image a dict with ``sem_seg`` (float [K, H, W], or LabelScores), ``panoptic_seg`` (int32
        [H, W] and a list of segments) and ``instances``, as far as they were asked for.
    """
    with torch.autocast(masks.device.type, enabled=False):
        tasks = _choose_queries(logits, masks, frames, settings, resized or [None] * len(frames))
        for of_image, image_masks, frame in zip(tasks, masks, frames):
            _run(of_image, image_masks, frame)
        return _finish(tasks)


def choose(
    logits: Tensor, threshold: float, topk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What class logits [..., Q, K + 1] alone decide.

    Returns:
        class probabilities [..., Q, K] without "no object"; of each query the greatest probability
        and its class (int64, -1 if the query is no candidate for a panoptic segment), [..., Q];
        and the at most ``topk`` most probable (query, class) pairs as probability and query * K +
        class, best first.
    """
    probs = at_least_float32(logits).softmax(-1)
    object_probs = probs[..., :-1]
    queries, classes = object_probs.shape[-2:]
    best, labels = probs.max(-1)
    candidates = (labels != classes) & (best > threshold)
    pair_scores, pairs = object_probs.flatten(-2).topk(min(topk, queries * classes))
    return object_probs, best, torch.where(candidates, labels, -1), pair_scores, pairs


def wanted_pairs(pairs: np.ndarray, classes: int, settings: Settings) -> np.ndarray:
    """Which pairs (query * K + class) become instances: int64 indices."""
    if not settings.only_things:
        return np.arange(len(pairs))
    return np.flatnonzero(np.isin(pairs % classes, list(settings.things)))


def _choose_queries(
    logits: Tensor,
    masks: Tensor,
    frames: list[Frame | None],
    settings: Settings,
    resized: list[Size | None],
) -> list[dict[str, Task]]:
    """The tasks of each image, by the key of their output."""
    object_probs, best, labels, pair_scores, pairs = choose(
        logits, settings.object_mask_threshold, settings.topk
    )
    queries, classes = object_probs.shape[1:]
    on_host = torch.cat([labels, pairs], dim=1).cpu().numpy()
    host_labels, host_pairs = on_host[:, :queries], on_host[:, queries:]

    tasks: list[dict[str, Task]] = []
    for i, (frame, output) in enumerate(zip(frames, resized)):
        size = tuple(masks.shape[-2:]) if frame is None else frame.output
        of_image: dict[str, Task] = {}
        if settings.semantic:
            if settings.compact:
                of_image["sem_seg"] = SemanticLabelTask(object_probs[i], size, output or size)
            else:
                of_image["sem_seg"] = SemanticTask(object_probs[i], size, output or size)
        if settings.panoptic:
            kept = np.flatnonzero(host_labels[i] >= 0)
            of_image["panoptic_seg"] = PanopticTask(
                kept.tolist(),
                host_labels[i][kept].tolist(),
                best[i, _to_device(kept, best.device)],
                things=settings.things,
                overlap_threshold=settings.overlap_threshold,
                size=size,
            )
        if settings.instance:
            chosen = wanted_pairs(host_pairs[i], classes, settings)
            index = _to_device(chosen, best.device)
            of_image["instances"] = InstanceTask(
                (host_pairs[i][chosen] // classes).tolist(),
                pairs[i, index] % classes,
                pair_scores[i, index],
                size,
                as_bool=settings.compact,
            )
        tasks.append(of_image)
    return tasks


def _run(tasks: dict[str, Task], masks: Tensor, frame: Frame | None) -> None:
    """Shows the masks [Q, h, w] of one image to its tasks."""
    everything = any(task.queries is None for task in tasks.values())
    if everything:
        needed = range(len(masks))
    else:
        needed = sorted(set().union(*(task.queries for task in tasks.values())))
        masks = masks[_to_device(needed, masks.device)]
    if not len(needed):
        return
    position = {query: i for i, query in enumerate(needed)}
    picks = []
    for task in tasks.values():
        queries = needed if task.queries is None else task.queries
        picks.append(_to_device([position[query] for query in queries], masks.device))

    channels = max((len(t.by_class) for t in tasks.values() if t.queries is None), default=0)
    for rows, probs in strips(masks, frame, channels, sigmoid=True):
        for task, pick in zip(tasks.values(), picks):
            task.add(rows, probs, pick)


def _finish(tasks: list[dict[str, Task]]) -> list[dict]:
    panoptic = [t["panoptic_seg"].areas for t in tasks if "panoptic_seg" in t]
    areas = iter(())
    if panoptic:
        on_host = torch.cat(panoptic, dim=1).cpu().numpy()
        ends = np.cumsum([a.shape[1] for a in panoptic])[:-1]
        areas = iter(np.split(on_host, ends, axis=1))
    return [
        {
            key: task.finish(next(areas)) if isinstance(task, PanopticTask) else task.finish()
            for key, task in of_image.items()
        }
        for of_image in tasks
    ]


def _to_device(index, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(index, dtype=np.int64)).to(device, non_blocking=True)
