"""Cityscapes' own scores, by cityscapesscripts' rules, counted while predictions come.

The scripts read every prediction from a PNG and compare masks one by one, after inference and in
one process. Here each image is counted as it arrives, in threads of the process that predicted it,
without any file; the counts (whole numbers, equal to those of the scripts) then go through the
scripts' own functions. Works on CPU, in any number of processes on any number of machines.
"""

import contextlib
import copy
import glob
import importlib
import io
import logging
import os
from collections import OrderedDict
from types import ModuleType

import numpy as np
import torch

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager

from .background import Background
from .cityscapes_counts import instance_matches, pixel_counts, read_labels
from .errors import EvaluationError
from .legacy_numpy import give_legacy_numpy
from .spool import Spool

logger = logging.getLogger(__name__)


class _CityscapesEvaluator(DatasetEvaluator):
    """Common part: finds ground truth, counts image by image, scores what all ranks counted.

    Args:
        dataset_name: with metadata ``gt_dir`` (folders of cities) and ``thing_classes`` or
            ``stuff_classes``.
        allow_missing: score the images that were predicted instead of refusing when some are
            missing (test images that could not be read and were skipped).

    Raises:
        ModuleNotFoundError: cityscapesscripts is not installed.
    """

    _script: str
    _gt_ending: str
    _output: str

    def __init__(self, dataset_name: str, *, allow_missing: bool = False) -> None:
        self._metadata = MetadataCatalog.get(dataset_name)
        self._allow_missing = allow_missing
        self._scripts = scripts(f"evaluation.{self._script}")
        give_legacy_numpy(self._scripts)
        self._args = copy.copy(self._scripts.args)
        self._args.JSONOutput = self._args.colorized = self._args.quiet = False
        self._args.bold = self._args.nocol = ""
        self._gt_dir = PathManager.get_local_path(self._metadata.gt_dir)
        paths = glob.glob(os.path.join(self._gt_dir, "*", "*" + self._gt_ending))
        self._gt = {_frame(path): path for path in sorted(paths)}
        if not self._gt:
            raise EvaluationError(
                f"Cannot find any ground truth for evaluation: {self._gt_dir}/*/*{self._gt_ending}"
            )

    def reset(self) -> None:
        self._counted = Spool()
        self._background = Background(lambda counted: self._counted.extend([counted]))

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for record, output in zip(inputs, outputs):
            if self._output not in output:
                continue
            frame = _frame(record["file_name"])
            if frame not in self._gt:
                raise EvaluationError(
                    f"{record['file_name']} was predicted, but there is no ground truth "
                    f"{self._gt_dir}/*/{frame}{self._gt_ending}"
                )
            prediction, size = self._on_the_host(output[self._output])
            self._background.submit(frame, self._count_frame, frame, prediction, size=size)

    def evaluate(self) -> OrderedDict | None:
        """The scores x100 on the main process, None on the others.

        Raises:
            EvaluationError: frames with ground truth were not predicted.
        """
        self._background.finish()
        spool = self._counted.gathered()
        if spool is None:
            return None
        counted = dict(spool)
        if not counted:
            logger.warning("[%s] Did not receive valid predictions.", type(self).__name__)
            return OrderedDict()
        missing = [frame for frame in self._gt if frame not in counted]
        if missing and not self._allow_missing:
            raise EvaluationError(
                f"{len(missing)} of {len(self._gt)} frames in {self._gt_dir} were not predicted, "
                f"the first is {missing[0]}"
            )
        # In the scripts' order, so that sums of floats do not depend on the number of processes.
        counted = [counted[frame] for frame in self._gt if frame in counted]
        logger.info("Evaluating %d images by the rules of cityscapesscripts", len(counted))
        output = io.StringIO()
        with contextlib.redirect_stdout(output), np.errstate(invalid="ignore"):
            results = self._score(counted)
        logger.info("Cityscapes scores:\n%s", output.getvalue().strip("\n"))
        return results

    def _count_frame(self, frame: str, prediction) -> tuple:
        return frame, self._count(prediction, self._gt[frame])


class CityscapesInstanceEvaluator(_CityscapesEvaluator):
    """AP and AP50 of instance masks, task ``segm``."""

    _script = "evalInstanceLevelSemanticLabeling"
    _gt_ending = "_gtFine_instanceIds.png"
    _output = "instances"

    def __init__(self, dataset_name: str, *, allow_missing: bool = False) -> None:
        super().__init__(dataset_name, allow_missing=allow_missing)
        self._scripts.setInstanceLabels(self._args)
        names = scripts("helpers.labels").name2label
        self._labels = [names[name] for name in self._metadata.thing_classes]

    def _on_the_host(self, instances: Instances) -> tuple[tuple, int]:
        masks = instances.pred_masks
        if masks.device.type != "cpu":
            masks = (masks != 0).cpu()
        masks = masks.numpy()
        classes, scores = instances.pred_classes.tolist(), instances.scores.tolist()
        return (masks, classes, scores), masks.nbytes

    def _count(self, prediction: tuple, gt_path: str) -> dict:
        masks, classes, scores = prediction
        return instance_matches(
            read_labels(gt_path),
            masks,
            [self._labels[c] if c < len(self._labels) else None for c in classes],
            scores,
            self._args.instLabels,
            gt_path,
        )

    def _score(self, counted: list[dict]) -> OrderedDict:
        averages = self._scripts.computeAverages(self._precisions(counted), self._args)
        self._scripts.printResults(averages, self._args)
        values = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
        return OrderedDict(segm={name: 100 * float(value) for name, value in values.items()})

    def _precisions(self, counted: list[dict]) -> np.ndarray:
        """AP of every class and IoU threshold, ``[1, classes, thresholds]``; NaN without objects.

        The scripts fail where a class has objects and nothing was predicted but on regions that do
        not count. That is 0, as without a prediction.
        """
        matches = dict(enumerate(counted))
        try:
            return self._scripts.evaluateMatches(matches, self._args)
        except IndexError:
            logger.debug("A class has only predictions on regions that do not count")
        args = copy.copy(self._args)
        precisions = np.zeros((1, len(self._args.instLabels), len(self._args.overlaps)))
        for row, name in enumerate(self._args.instLabels):
            for column, overlap in enumerate(self._args.overlaps):
                args.instLabels, args.overlaps = [name], [overlap]
                with contextlib.suppress(IndexError):
                    precisions[0, row, column] = self._scripts.evaluateMatches(matches, args).item()
        return precisions


class CityscapesSemSegEvaluator(_CityscapesEvaluator):
    """IoU and iIoU over classes and over categories, task ``sem_seg``."""

    _script = "evalPixelLevelSemanticLabeling"
    _gt_ending = "_gtFine_labelIds.png"
    _output = "sem_seg"

    def __init__(self, dataset_name: str, *, allow_missing: bool = False) -> None:
        super().__init__(dataset_name, allow_missing=allow_missing)
        # Classes are predicted as train ids. Those that are not evaluated become "unlabeled", which
        # is always wrong.
        self._to_id = np.zeros(256, np.uint8)
        for train_id, label in scripts("helpers.labels").trainId2label.items():
            if not label.ignoreInEval:
                self._to_id[train_id] = label.id
        self._scripts.generateMatrix(self._args)  # fills args.evalLabels

    def _on_the_host(self, scores: torch.Tensor) -> tuple[np.ndarray, int]:
        labels = scores.argmax(dim=0).to(torch.uint8).cpu().numpy()
        return labels, labels.nbytes

    def _count(self, labels: np.ndarray, gt_path: str) -> tuple[np.ndarray, list]:
        instances = read_labels(gt_path.replace("labelIds", "instanceIds"))
        return pixel_counts(self._to_id[labels], read_labels(gt_path), instances, gt_path)

    def _score(self, counted: list[tuple[np.ndarray, list]]) -> OrderedDict:
        module, args = self._scripts, self._args
        confusion = sum(pixels for pixels, _ in counted)
        statistics = module.generateInstanceStats(args)
        for _, instances in counted:
            _add_instances(statistics, instances, args.avgClassSize)

        ids = {module.id2label[i].name: i for i in args.evalLabels}
        classes = {n: module.getIouScoreForLabel(i, confusion, args) for n, i in ids.items()}
        class_instances = {
            n: module.getInstanceIouScoreForLabel(i, confusion, statistics, args)
            for n, i in ids.items()
        }
        categories = {
            name: module.getIouScoreForCategory(name, confusion, args)
            for name in module.category2labels
        }
        category_instances = {
            name: module.getInstanceIouScoreForCategory(name, confusion, statistics, args)
            for name in module.category2labels
        }
        averages = [
            module.getScoreAverage(scores, args)
            for scores in (classes, class_instances, categories, category_instances)
        ]
        module.printClassScores(classes, class_instances, args)
        print("Score Average : {:5.3f}    {:5.3f}\n".format(*averages[:2]))
        module.printCategoryScores(categories, category_instances, args)
        print("Score Average : {:5.3f}    {:5.3f}".format(*averages[2:]))
        names = ("IoU", "iIoU", "IoU_sup", "iIoU_sup")
        return OrderedDict(sem_seg={n: 100.0 * float(v) for n, v in zip(names, averages)})


def scripts(module: str) -> ModuleType:
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


def _frame(path: str) -> str:
    """``<city>_<sequence>_<frame>``, which names of images and of ground truth begin with."""
    return "_".join(os.path.basename(path).split("_")[:3])


def _add_instances(statistics: dict, instances: list, average_size: dict[str, float]) -> None:
    """Adds one image to the scripts' statistics: every object counts as one of average size."""
    for label, size, own, category in instances:
        weight = average_size[label.name] / float(size)
        counters = [(statistics["classes"][label.name], own)]
        if label.category in statistics["categories"]:
            counters.append((statistics["categories"][label.category], category))
        for counter, hits in counters:
            misses = size - hits
            counter["tp"] += hits
            counter["fn"] += misses
            counter["tpWeighted"] += float(hits) * weight
            counter["fnWeighted"] += float(misses) * weight
