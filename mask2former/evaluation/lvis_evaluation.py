"""LVIS AP, without the lvis package (which needs a desktop's libraries) unless it is asked for."""

import json
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from .average_precision import LVIS_METRICS, lvis_average_precision
from .coco_evaluation import InstanceSpool
from .spool import Spool

logger = logging.getLogger(__name__)


class LVISEvaluator(InstanceSpool, DatasetEvaluator):
    """AP of boxes and masks by LVIS' rules (federated annotations, Gupta et al., CVPR 2019).

    Keys and files are those of detectron2's evaluator.

    Args:
        dataset_name: with metadata ``json_file``.
        tasks: among "bbox", "segm"; default: what the predictions contain.
        distributed: gather over all ranks; False evaluates what this process has seen.
        output_dir: for ``instances_predictions.pth`` and ``lvis_instances_results.json``.
        max_dets_per_image: default 300, LVIS' rule.
        engine: TEST.COCO_EVAL: "fast", or "pycocotools" for the lvis package.
        only_seen: leave images out that were not predicted.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Iterable[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        engine: str = "fast",
        only_seen: bool = False,
    ) -> None:
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._limit = max_dets_per_image or 300
        self._engine = engine
        self._only_seen = only_seen
        self._metadata = MetadataCatalog.get(dataset_name)
        with open(PathManager.get_local_path(self._metadata.json_file)) as file:
            self._ground_truth = json.load(file)

    def evaluate(self) -> OrderedDict:
        """The metrics x100 by task on the main process, ``{}`` on the others."""
        predictions = self._gathered()
        if predictions is None:
            return OrderedDict()
        self._save_predictions(predictions)
        results = list(self._with_dataset_ids(predictions))
        self._save_results(results, "lvis_instances_results.json")
        if not self._ground_truth.get("annotations"):
            logger.info("Annotations are not available for evaluation.")
            return OrderedDict()
        ground_truth = self._ground_truth
        if self._only_seen:
            ground_truth = _part(ground_truth, {p["image_id"] for p in predictions})
        has_masks = any("segmentation" in result for result in results)
        tasks = self._tasks or (("bbox", "segm") if has_masks else ("bbox",))
        return OrderedDict(
            (task, self._average_precision(ground_truth, results, task)) for task in sorted(tasks)
        )

    def _with_dataset_ids(self, predictions: Spool) -> Iterator[dict]:
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        # Without a map, LVIS ids are the contiguous ones plus one.
        dataset_id = {c: d for d, c in ids.items()} if ids else None
        for prediction in predictions:
            for result in prediction["instances"]:
                category = result["category_id"]
                result["category_id"] = dataset_id[category] if dataset_id else category + 1
                yield result

    def _average_precision(self, ground_truth: dict, results: list[dict], task: str) -> dict:
        if not results:
            logger.warning("No predictions from the model!")
            return {metric: float("nan") for metric in LVIS_METRICS}
        logger.info("Evaluating %s of %d predictions ...", task, len(results))
        evaluation = lvis_average_precision(
            ground_truth, results, task, engine=self._engine, limit=self._limit
        )
        logger.info("%s\n%s", task, evaluation.summary)
        # -100 stands for "nothing of this kind", as the lvis package's -1 does in detectron2.
        metrics = {m: 100 * value for m, value in zip(LVIS_METRICS, evaluation.stats)}
        logger.info("Evaluation results for %s: \n%s", task, create_small_table(metrics))
        return metrics


def _part(ground_truth: dict, image_ids: set) -> dict:
    return {
        **ground_truth,
        "images": [i for i in ground_truth["images"] if i["id"] in image_ids],
        "annotations": [a for a in ground_truth["annotations"] if a["image_id"] in image_ids],
    }
