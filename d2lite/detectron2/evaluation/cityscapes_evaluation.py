"""Cityscapes' own scores for instances and semantics, through cityscapesscripts.

Predictions are written into a temporary folder that the scripts read; it is removed afterwards.
Works on CPU. All processes must be on one machine.
"""

import glob
import importlib
import logging
import os
import tempfile
from collections import OrderedDict
from types import ModuleType

import numpy as np
import torch
from PIL import Image

from detectron2._missing import missing_getattr
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ._old_numpy import give_old_numpy
from .evaluator import DatasetEvaluator

__all__ = [
    "CityscapesEvaluator",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "DatasetEvaluator",
    "MetadataCatalog",
    "PathManager",
    "comm",
]


def _scripts(module: str) -> ModuleType:
    """A module of cityscapesscripts, which only these evaluators need."""
    try:
        return importlib.import_module(f"cityscapesscripts.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "cityscapesscripts":
            raise
        raise ModuleNotFoundError(
            "Evaluation on Cityscapes needs cityscapesscripts: pip install cityscapesscripts",
            name=error.name,
        ) from error


class CityscapesEvaluator(DatasetEvaluator):
    """Common part: the shared temporary folder and the call of the scripts.

    Args:
        dataset_name: with metadata ``thing_classes`` or ``stuff_classes`` and ``gt_dir``.
    """

    _script: str
    _gt_pattern: str

    def __init__(self, dataset_name: str) -> None:
        self._metadata = MetadataCatalog.get(dataset_name)
        self._cpu_device = torch.device("cpu")
        self._logger = logging.getLogger(__name__)

    def reset(self) -> None:
        if comm.get_local_size() != comm.get_world_size():
            raise AssertionError(f"{type(self).__name__} works on a single machine only")
        self._working_dir = tempfile.TemporaryDirectory(prefix="cityscapes_eval_")
        self._temp_dir = comm.all_gather(self._working_dir.name)[0]  # that of rank 0, for all
        if self._temp_dir != self._working_dir.name:
            self._working_dir.cleanup()
        self._logger.info("Writing Cityscapes predictions to %s ...", self._temp_dir)

    def _stem(self, record: dict) -> str:
        """Path in the temporary folder, without ending, for an input's prediction."""
        name = os.path.splitext(os.path.basename(record["file_name"]))[0]
        return os.path.join(self._temp_dir, name)

    def evaluate(self) -> OrderedDict | None:
        """The scores, in percent; None on other ranks than 0.

        Raises:
            AssertionError: no ground truth is found.
        """
        comm.synchronize()
        if comm.get_rank() > 0:
            return None
        scripts = _scripts(f"evaluation.{self._script}")
        give_old_numpy(scripts)
        args = scripts.args
        args.predictionPath = os.path.abspath(self._temp_dir)
        args.predictionWalk = None
        args.JSONOutput = False
        args.colorized = False

        gt_dir = PathManager.get_local_path(self._metadata.gt_dir)
        pattern = os.path.join(gt_dir, "*", self._gt_pattern)
        ground_truth = sorted(glob.glob(pattern))
        if not ground_truth:
            raise AssertionError(f"Cannot find any ground truth for evaluation: {pattern}")
        self._logger.info("Evaluating %d images with cityscapesscripts", len(ground_truth))
        results = self._run(scripts, args, ground_truth)
        self._working_dir.cleanup()
        return results


class CityscapesInstanceEvaluator(CityscapesEvaluator):
    """AP and AP50 of instance masks, task ``segm``."""

    _script = "evalInstanceLevelSemanticLabeling"
    _gt_pattern = "*_gtFine_instanceIds.png"

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Writes one text file per image and one mask image per instance."""
        name2label = _scripts("helpers.labels").name2label
        for record, output in zip(inputs, outputs):
            stem = self._stem(record)
            lines = []
            if "instances" in output:
                instances = output["instances"]
                masks = instances.pred_masks.to(torch.uint8).to(self._cpu_device).numpy()
                classes, scores = instances.pred_classes.tolist(), instances.scores.tolist()
                for i, (mask, label, score) in enumerate(zip(masks, classes, scores)):
                    name = self._metadata.thing_classes[label]
                    path = f"{stem}_{i}_{name}.png"
                    Image.fromarray(mask * 255).save(path)
                    lines.append(f"{os.path.basename(path)} {name2label[name].id} {score}\n")
            # An image without instances needs its (empty) file too.
            with open(f"{stem}_pred.txt", "w") as f:
                f.writelines(lines)

    def _run(self, scripts: ModuleType, args, ground_truth: list[str]) -> OrderedDict:
        args.gtInstancesFile = os.path.join(self._temp_dir, "gtInstances.json")
        predictions = [scripts.getPrediction(path, args) for path in ground_truth]
        # The steps of the scripts' evaluateImgLists(), which also leaves a matches.json in the
        # working directory, and with numpy 2.4 fails to.
        scripts.setInstanceLabels(args)
        gt_instances = scripts.getGtInstances(ground_truth, args)
        matches = scripts.matchGtWithPreds(predictions, ground_truth, gt_instances, args)
        averages = scripts.computeAverages(scripts.evaluateMatches(matches, args), args)
        scripts.printResults(averages, args)
        return OrderedDict(
            segm={
                "AP": float(averages["allAp"]) * 100,
                "AP50": float(averages["allAp50%"]) * 100,
            }
        )


class CityscapesSemSegEvaluator(CityscapesEvaluator):
    """IoU and iIoU over classes and over categories, task ``sem_seg``."""

    _script = "evalPixelLevelSemanticLabeling"
    _gt_pattern = "*_gtFine_labelIds.png"

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Writes one image of label ids per input; 255 where a class is not evaluated."""
        to_id = np.full(256, 255, dtype=np.uint8)
        for train_id, label in _scripts("helpers.labels").trainId2label.items():
            if not label.ignoreInEval:
                to_id[train_id] = label.id
        for record, output in zip(inputs, outputs):
            pred = output["sem_seg"].argmax(dim=0).to(torch.uint8).to(self._cpu_device).numpy()
            Image.fromarray(to_id[pred]).save(f"{self._stem(record)}_pred.png")

    def _run(self, scripts: ModuleType, args, ground_truth: list[str]) -> OrderedDict:
        predictions = [scripts.getPrediction(args, path) for path in ground_truth]
        results = scripts.evaluateImgLists(predictions, ground_truth, args)
        return OrderedDict(
            sem_seg={
                "IoU": 100.0 * results["averageScoreClasses"],
                "iIoU": 100.0 * results["averageScoreInstClasses"],
                "IoU_sup": 100.0 * results["averageScoreCategories"],
                "iIoU_sup": 100.0 * results["averageScoreInstCategories"],
            }
        )


__getattr__ = missing_getattr(__name__)
