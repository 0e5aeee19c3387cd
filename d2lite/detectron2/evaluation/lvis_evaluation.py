"""LVIS' average precision (Gupta et al., CVPR 2019), through the ``lvis`` package."""

import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable

import torch

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from ._old_numpy import give_old_numpy
from .coco_evaluation import instances_to_coco_json
from .evaluator import DatasetEvaluator

__all__ = [
    "BoxMode",
    "Boxes",
    "CfgNode",
    "DatasetEvaluator",
    "LVISEvaluator",
    "MetadataCatalog",
    "PathManager",
    "comm",
    "create_small_table",
    "instances_to_coco_json",
    "pairwise_iou",
]

METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"]


def _import_lvis():
    """The package, which only this evaluator needs."""
    try:
        import lvis
        import lvis.eval
    except ModuleNotFoundError as error:
        if error.name != "lvis":
            raise
        raise ModuleNotFoundError(
            "Evaluation on LVIS needs the lvis package: pip install lvis", name="lvis"
        ) from error
    give_old_numpy(lvis.eval)
    return lvis


class LVISEvaluator(DatasetEvaluator):
    """Average precision of ``instances`` outputs by LVIS' rules (federated annotations).

    Args:
        dataset_name: with metadata ``json_file``.
        tasks: among "bbox", "segm"; default: what the predictions contain.
        output_dir: for ``instances_predictions.pth`` and ``lvis_instances_results.json``.
        max_dets_per_image: default 300, LVIS' rule.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Iterable[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ) -> None:
        self._logger = logging.getLogger(__name__)
        self._tasks = None if isinstance(tasks, CfgNode) else tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets_per_image = max_dets_per_image
        self._cpu_device = torch.device("cpu")
        self._metadata = MetadataCatalog.get(dataset_name)
        self._lvis_api = _import_lvis().LVIS(PathManager.get_local_path(self._metadata.json_file))
        self._do_evaluation = len(self._lvis_api.get_ann_ids()) > 0

    def reset(self) -> None:
        self._predictions: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Encodes a batch; inputs have ``image_id``, outputs ``instances`` at the image's size."""
        for record, output in zip(inputs, outputs):
            if "instances" in output:
                instances = instances_to_coco_json(output["instances"], record["image_id"])
                self._predictions.append({"image_id": record["image_id"], "instances": instances})

    def evaluate(self) -> OrderedDict | None:
        """The metrics, in percent, by task; None on other ranks than 0."""
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain.from_iterable(comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return None
        if not predictions:
            self._logger.warning("[LVISEvaluator] Did not receive valid predictions.")
            return {}
        results = list(itertools.chain(*[x["instances"] for x in predictions]))
        contiguous = getattr(self._metadata, "thing_dataset_id_to_contiguous_id", None)
        # Without a map, LVIS ids are the contiguous ones plus one.
        dataset_id = {v: k for k, v in contiguous.items()} if contiguous else None
        for result in results:
            category = result["category_id"]
            result["category_id"] = dataset_id[category] if dataset_id else category + 1
        self._write(predictions, results)
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return {}
        has_masks = any("segmentation" in r for r in results)
        tasks = self._tasks or (("bbox", "segm") if has_masks else ("bbox",))
        return OrderedDict((task, self._score(results, task)) for task in sorted(tasks))

    def _write(self, predictions: list[dict], results: list[dict]) -> None:
        """Writes the two files, if there is a folder for them."""
        if not self._output_dir:
            return
        PathManager.mkdirs(self._output_dir)
        path = os.path.join(self._output_dir, "instances_predictions.pth")
        with PathManager.open(path, "wb") as f:
            torch.save(predictions, f)
        path = os.path.join(self._output_dir, "lvis_instances_results.json")
        with PathManager.open(path, "w") as f:
            f.write(json.dumps(results))

    def _score(self, results: list[dict], task: str) -> dict[str, float]:
        """One task's metrics."""
        if not results:
            self._logger.warning("No predictions from the model!")
            return {metric: float("nan") for metric in METRICS}
        lvis = _import_lvis()
        # The package writes into the entries, and takes a mask's area only without a box.
        dropped = {"bbox"} if task == "segm" else set()
        entries = [{k: v for k, v in r.items() if k not in dropped} for r in results]
        limit = self._max_dets_per_image or 300
        detections = lvis.LVISResults(self._lvis_api, entries, max_dets=limit)
        evaluation = lvis.LVISEval(self._lvis_api, detections, task)
        evaluation.params.max_dets = limit
        evaluation.run()
        evaluation.print_results()
        values = evaluation.get_results()
        metrics = {metric: float(values[metric] * 100) for metric in METRICS}
        self._logger.info("Evaluation results for %s: \n%s", task, create_small_table(metrics))
        return metrics


__getattr__ = missing_getattr(__name__)
