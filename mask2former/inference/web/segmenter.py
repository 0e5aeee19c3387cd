"""The model behind the page: predicts once an image and remembers, so that sliders are quick."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data.detection_utils import read_image
from mask2former.data.dataset_mappers.reading import DECODE_FAILURES, depth_warning
from mask2former.inference import Predictor
from mask2former.inference.annotation import Proposal, ProposalOptions, proposals_of
from mask2former.inference.annotation.drawing import label_colors
from mask2former.inference.annotation.proposals import TASKS, predictable_classes
from mask2former.inference.tiling import TiledModel
from mask2former.modeling.fast_inference import compact_outputs

from .results import Result

_REMEMBERED = 8  # images
_LEAST_SCORE = 0.01  # of the instances that are remembered
# The page's first choice: everything, then objects, then regions.
_ORDER = ("panoptic", "instance", "semantic")


@dataclass
class _Found:
    """Of one image: proposals by task, and the threshold of the panoptic ones."""

    proposals: dict[str, list[Proposal]]
    threshold: float


class Segmenter:
    """Segments image files for any task that the config switches on.

    Safe to be called from several threads; images are predicted one at a time.

    Args:
        predictor: its config's ``MODEL.MASK_FORMER.TEST`` says the tasks.
        model_name: for the files that are written.

    Attributes:
        tasks: names, the page's first choice first.
        colors: class name -> RGB.
    """

    def __init__(self, predictor: Predictor, model_name: str = "") -> None:
        self.predictor, self.model_name = predictor, model_name
        self.tasks = tasks_of(predictor.cfg)
        self.colors = label_colors(predictor.metadata)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, _Found] = OrderedDict()

    def labels(self, task: str) -> list[str]:
        """The classes that a task can give, in the data set's order where it has one."""
        possible = predictable_classes(self.predictor.metadata, task)
        return [name for name in self.colors if name in possible]

    def segment(self, file: str | Path, task: str, threshold: float, *, name: str = "") -> Result:
        """Segments an image.

        Args:
            file: the image.
            task: one of ``tasks``.
            threshold: least score of an instance; least class probability of a panoptic segment;
                without meaning for semantic segmentation, where every pixel has a class.
            name: for the files that are written (default: the file's).

        Raises:
            ValueError: the file is no image, or the task is none of ``tasks``.
        """
        if task not in self.tasks:
            raise ValueError(f"this model has no {task} output; it has {', '.join(self.tasks)}")
        name = name or Path(file).name
        try:
            image = read_image(str(file), "BGR")
        except DECODE_FAILURES as error:
            raise ValueError(f"{name} cannot be read as an image: {error}") from error
        key = hashlib.sha256(image.tobytes() + str(image.shape).encode()).hexdigest()
        with self._lock:
            found = self._remembered.pop(key, None)
            if found is None or (task == "panoptic" and found.threshold != threshold):
                found = self._predict(image, threshold)
            self._remembered[key] = found
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        shown = [p for p in found.proposals[task] if p.score is None or p.score >= threshold]
        return Result(
            image=image,
            name=name,
            task=task,
            threshold=threshold,
            proposals=shown,
            colors=self.colors,
            labels=self.labels(task),
            model_name=self.model_name,
            note=depth_warning(str(file)).replace(str(file), name),
        )

    def _predict(self, image: Any, threshold: float) -> _Found:
        self._set_panoptic_threshold(threshold)
        with self._less_memory():
            output: Mapping[str, Any] = self.predictor(image)
        proposals = {}
        for task in self.tasks:
            options = ProposalOptions(task=task, threshold=_LEAST_SCORE)
            proposals[task], _ = proposals_of(output, self.predictor.metadata, options)
        return _Found(proposals, threshold)

    def _less_memory(self) -> AbstractContextManager:
        """Labels and bool masks: of a photo of 12 megapixels, scores would fill gigabytes.

        Tiles are joined by their scores, and a model that is left as published gives them.
        """
        model = self.predictor.model
        if isinstance(model, TiledModel) or not self.predictor.cfg.MODEL.FAST:
            return nullcontext()
        return compact_outputs(model)

    def _set_panoptic_threshold(self, threshold: float) -> None:
        for module in self.predictor.model.modules():  # the model may be wrapped (tiles)
            if hasattr(module, "object_mask_threshold"):
                module.object_mask_threshold = threshold


def tasks_of(cfg: Any) -> list[str]:
    """The tasks that ``MODEL.MASK_FORMER.TEST`` switches on.

    Raises:
        ValueError: none of them.
    """
    test = cfg.MODEL.MASK_FORMER.TEST
    tasks = [task for task in _ORDER if test[f"{task.upper()}_ON"]]
    if not tasks:
        keys = ", ".join(f"{task.upper()}_ON" for task in TASKS)
        raise ValueError(f"MODEL.MASK_FORMER.TEST: one of {keys} must be True")
    return tasks
