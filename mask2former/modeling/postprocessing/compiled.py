"""Post-processing for torch.compile: everything that tensors decide in one graph.

The graph has no choice of queries in it, which would give it sizes that depend on data: it looks at
all of them, a strip of rows at a time. What follows on the host is short: which classes are things,
which segments are too small.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron2.modeling.postprocessing import sem_seg_postprocess

from ..mask_predictions import at_least_float32
from .inference import Settings, choose, segment, wanted_pairs
from .instance import InstanceTask, foreground
from .label_scores import LabelScores
from .panoptic import PanopticTask, winners
from .resize import Frame, Size, resizing, strips

# Outputs of a strip that are summed over strips; maps are put below one another, and the rest is
# the same for all strips.
SUMS = ("areas", "mask_areas", "confidence")
MAPS = {"winner": 0, "inside": 0, "masks": 1, "sem_seg": 1}


def look(
    logits: Tensor,
    masks: Tensor,
    rows: Tensor | None,
    columns: Tensor | None,
    tasks: tuple[bool, bool, bool],
    threshold: float,
    topk: int,
) -> dict[str, Tensor]:
    """From the logits of an image to all that the three tasks need of a strip of it.

    Args:
        logits: class logits [Q, K + 1].
        masks: mask logits [Q, h, w] (of the strip).
        rows, columns: matrices [H, h] and [W, w] that resize them; None: they have their size.
        tasks: whether semantic, panoptic and instance output is wanted.
        threshold, topk: see :func:`~.inference.choose`.

    Returns:
        ``labels`` [Q] and ``pairs`` [topk] as :func:`~.inference.choose` gives them, and by task

        * ``sem_seg`` [K, H, W];
        * ``winner``, ``inside``, ``areas`` as :func:`~.panoptic.winners` gives them, ``best`` [Q];
        * ``masks`` bool [Q, H, W], ``mask_areas``, ``confidence`` [Q], ``pair_scores`` [topk].
    """
    semantic, panoptic, instance = tasks
    if rows is not None:
        masks = rows @ masks @ columns.T
    object_probs, best, labels, pair_scores, pairs = choose(logits, threshold, topk)
    probs = masks.sigmoid()  # [Q, H, W]
    found = {"labels": labels, "pairs": pairs}
    if semantic:
        found["sem_seg"] = (object_probs.T @ probs.flatten(1)).unflatten(1, probs.shape[1:])
    if panoptic:
        scores = torch.where(labels >= 0, best, -1.0)
        found["best"] = scores
        found["winner"], found["inside"], found["areas"] = winners(probs, scores[:, None, None])
    if instance:
        found["pair_scores"] = pair_scores
        found["masks"], found["mask_areas"], found["confidence"] = foreground(probs)
    return found


class CompiledSegmentation:
    """:func:`~.inference.segment` with :func:`look` compiled; equal up to the rounding of sums.

    Args:
        options: of torch.compile.
        resize: whether the graph resizes, which are then products with whole matrices. None: not on
            a CPU, where leaving out their zeros is many times faster.
    """

    def __init__(self, options: dict[str, Any], resize: bool | None = None) -> None:
        self.look = torch.compile(look, **options)
        self.resize = resize

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        masks: Tensor,
        frames: list[Frame | None],
        settings: Settings,
        resized: list[Size] | None = None,
    ) -> list[dict]:
        """Arguments and result of :func:`~.inference.segment`."""
        with torch.autocast(masks.device.type, enabled=False):
            logits, masks = at_least_float32(logits), at_least_float32(masks)
            found = [self._image(*image, settings) for image in zip(logits, masks, frames)]
            for image, size in zip(found, resized or ()):
                own = tuple(image["sem_seg"].shape[1:])
                if own != size:
                    image["sem_seg"] = sem_seg_postprocess(image["sem_seg"], own, *size)
            return _finish(found, logits.shape[-1] - 1, settings)

    def __reduce__(self) -> tuple:
        # Like nn.Module.compile: a copy of the model is not compiled.
        return _uncompiled, ()

    def _image(
        self, logits: Tensor, masks: Tensor, frame: Frame | None, settings: Settings
    ) -> dict[str, Tensor]:
        tasks = (settings.semantic, settings.panoptic, settings.instance)
        options = (tasks, settings.object_mask_threshold, settings.topk)
        result: dict[str, Any] = {}
        for strip in self._strips(masks, frame):
            _free_sizes(*strip)
            for key, value in self.look(logits, *strip, *options).items():
                if key in SUMS:
                    result[key] = result[key] + value if key in result else value
                elif key in MAPS:
                    result.setdefault(key, []).append(value)
                else:
                    result[key] = value
        return {k: torch.cat(v, MAPS[k]) if k in MAPS else v for k, v in result.items()}

    def _strips(
        self, masks: Tensor, frame: Frame | None
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
        resize = masks.device.type != "cpu" if self.resize is None else self.resize
        if frame is None or not resize:
            yield from ((logits, None, None) for _, logits in strips(masks, frame))
        else:
            for _, source, weights, columns in resizing(masks, frame):
                # Dense whether they are parts or not, or both cases would be compiled.
                yield source.contiguous(), weights.contiguous(), columns.weights


def _uncompiled() -> Callable:
    return segment


def _free_sizes(masks: Tensor, rows: Tensor | None, columns: Tensor | None) -> None:
    # From the first: results have as many sizes as there are images.
    for tensor, dims in ((masks, (1, 2)), (rows, (0, 1)), (columns, (0, 1))):
        for dim in dims if tensor is not None else ():
            if tensor.shape[dim] > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, dim)


def _finish(found: list[dict[str, Tensor]], classes: int, settings: Settings) -> list[dict]:
    """The host's part, after one copy of all images' choices and areas."""
    small = [
        torch.cat([image["labels"], image["pairs"], *image.get("areas", ())]) for image in found
    ]
    results = []
    for image, on_host in zip(found, torch.stack(small).cpu().numpy()):
        queries, pairs = len(image["labels"]), len(image["pairs"])
        labels, pairs, areas = np.split(on_host, [queries, queries + pairs])
        result: dict[str, Any] = {}
        if settings.semantic:
            scores = image["sem_seg"]  # [K, H, W]
            result["sem_seg"] = (
                LabelScores(scores.max(0).indices, len(scores)) if settings.compact else scores
            )
        if settings.panoptic:
            result["panoptic_seg"] = _panoptic(image, labels, settings).finish(
                areas.reshape(3, queries)
            )
        if settings.instance:
            chosen = wanted_pairs(pairs, classes, settings)
            result["instances"] = _instances(image, chosen, classes, settings.compact).finish()
        results.append(result)
    return results


def _panoptic(image: dict[str, Tensor], labels: np.ndarray, settings: Settings) -> PanopticTask:
    task = PanopticTask(
        range(len(labels)),
        labels.tolist(),
        image["best"],
        things=settings.things,
        overlap_threshold=settings.overlap_threshold,
        size=(0, 0),
    )
    task.winner, task.inside = image["winner"], image["inside"]
    return task


def _instances(
    image: dict[str, Tensor], chosen: np.ndarray, classes: int, as_bool: bool
) -> InstanceTask:
    index = torch.from_numpy(chosen).to(image["pairs"].device, non_blocking=True)
    pairs = image["pairs"][index]
    task = InstanceTask((), pairs % classes, image["pair_scores"][index], (0, 0), as_bool=as_bool)
    task.size = tuple(image["masks"].shape[1:])
    task.ranks = pairs // classes
    task.masks, task.areas = image["masks"], image["mask_areas"]
    task.confidence = image["confidence"]
    return task
