"""COCO's average precision for boxes, masks and keypoints."""

import contextlib
import io
import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from ._coco_json import instances_to_coco_json
from ._coco_run import COCOevalMaxDets, _evaluate_predictions_on_coco
from .evaluator import DatasetEvaluator
from .fast_eval_api import COCOeval_opt

__all__ = [
    "BoxMode",
    "Boxes",
    "COCOEvaluator",
    "COCOevalMaxDets",
    "COCOeval_opt",
    "CfgNode",
    "DatasetEvaluator",
    "MetadataCatalog",
    "PathManager",
    "comm",
    "convert_to_coco_json",
    "create_small_table",
    "instances_to_coco_json",
    "pairwise_iou",
]

METRICS = {
    "bbox": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
    "segm": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
    "keypoints": ["AP", "AP50", "AP75", "APm", "APl"],
}


class COCOEvaluator(DatasetEvaluator):
    """Average precision of ``instances`` outputs, by pycocotools.

    Masks are run-length encoded as they come, so memory stays small over a whole data set.

    Args:
        dataset_name: with metadata ``json_file``; without it the data set is converted to COCO's
            format first (into ``output_dir``).
        tasks: among "bbox", "segm", "keypoints"; default: what the predictions contain.
        distributed: gather over all ranks; False evaluates what this process has seen.
        output_dir: for ``instances_predictions.pth`` and ``coco_instances_results.json``.
        max_dets_per_image: default 100, COCO's rule.
        use_fast_impl: accepted; both values give pycocotools.
        kpt_oks_sigmas: COCO's keypoint tolerances; default: those of its 17 keypoints.
        allow_cached_coco: reuse an earlier conversion.

    Raises:
        ValueError: the data set has to be converted and there is no ``output_dir``.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Iterable[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: tuple = (),
        allow_cached_coco: bool = True,
    ) -> None:
        self._logger = logging.getLogger(__name__)
        self._distributed = distributed
        self._output_dir = output_dir
        self._use_fast_impl = use_fast_impl
        self._max_dets_per_image = [1, 10, max_dets_per_image or 100]
        if isinstance(tasks, CfgNode):  # the signature of old scripts: (name, cfg, distributed)
            kpt_oks_sigmas = kpt_oks_sigmas or tasks.TEST.KEYPOINT_OKS_SIGMAS
            tasks = None
        self._tasks = tasks
        self._cpu_device = torch.device("cpu")

        self._metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(self._metadata, "json_file"):
            if output_dir is None:
                raise ValueError(
                    f"'{dataset_name}' is not in COCO's format (its metadata has no json_file): "
                    "output_dir must be given, for the converted annotations"
                )
            self._logger.info("Converting '%s' to COCO format ...", dataset_name)
            path = os.path.join(output_dir, f"{dataset_name}_coco_format.json")
            self._metadata.json_file = path
            convert_to_coco_json(dataset_name, path, allow_cached=allow_cached_coco)
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco_api = COCO(PathManager.get_local_path(self._metadata.json_file))
        # Test sets come without annotations: predictions are written, nothing is computed.
        self._do_evaluation = "annotations" in self._coco_api.dataset
        self._kpt_oks_sigmas = kpt_oks_sigmas

    def reset(self) -> None:
        self._predictions: list[dict] = []
        self._results: OrderedDict = OrderedDict()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Encodes a batch; inputs have ``image_id``, outputs ``instances`` at the image's size."""
        for record, output in zip(inputs, outputs):
            if "instances" in output:
                instances = instances_to_coco_json(output["instances"], record["image_id"])
                self._predictions.append({"image_id": record["image_id"], "instances": instances})

    def evaluate(self, img_ids: list[int] | None = None) -> OrderedDict:
        """The metrics, in percent, by task; ``{}`` on other ranks than 0.

        Args:
            img_ids: only these images; default: all of the data set.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain.from_iterable(comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return {}
        self._results = OrderedDict()
        if not predictions:
            self._logger.warning("[COCOEvaluator] Did not receive valid predictions.")
            return {}
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "instances_predictions.pth")
            with PathManager.open(path, "wb") as f:
                torch.save(predictions, f)
        self._eval_predictions(predictions, img_ids=img_ids)
        return OrderedDict((task, dict(metrics)) for task, metrics in self._results.items())

    def _tasks_from_predictions(self, predictions: list[dict]) -> list[str]:
        """Boxes always, masks and keypoints when there are any."""
        tasks = {"bbox"}
        for prediction in predictions:
            if "segmentation" in prediction:
                tasks.add("segm")
            if "keypoints" in prediction:
                tasks.add("keypoints")
        return sorted(tasks)

    def _eval_predictions(self, predictions: list[dict], img_ids: list[int] | None = None) -> None:
        """Writes the result file and fills ``self._results``."""
        self._logger.info("Preparing results for COCO format ...")
        # Copies: the predictions keep their contiguous ids, for another evaluate() of some images.
        coco_results = [dict(result) for x in predictions for result in x["instances"]]
        tasks = self._tasks or self._tasks_from_predictions(coco_results)
        self._to_dataset_ids(coco_results)

        if self._output_dir:
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            self._logger.info("Saving results to %s", path)
            with PathManager.open(path, "w") as f:
                f.write(json.dumps(coco_results))
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return
        for task in sorted(tasks):
            if task not in METRICS:
                raise AssertionError(f"COCOEvaluator: unknown task '{task}'")
            coco_eval = None
            if coco_results:
                coco_eval = _evaluate_predictions_on_coco(
                    self._coco_api,
                    coco_results,
                    task,
                    kpt_oks_sigmas=self._kpt_oks_sigmas,
                    cocoeval_fn=COCOeval_opt if self._use_fast_impl else COCOeval,
                    img_ids=img_ids,
                    max_dets_per_image=self._max_dets_per_image,
                )
            self._results[task] = self._derive_coco_results(
                coco_eval, task, class_names=self._metadata.get("thing_classes")
            )

    def _to_dataset_ids(self, coco_results: list[dict]) -> None:
        """Maps contiguous class ids back to the data set's, in place."""
        contiguous = getattr(self._metadata, "thing_dataset_id_to_contiguous_id", None)
        if contiguous is None:
            return
        if sorted(contiguous.values()) != list(range(len(contiguous))):
            raise AssertionError(
                f"thing_dataset_id_to_contiguous_id of '{self._metadata.name}' must map to "
                f"0..{len(contiguous) - 1}"
            )
        dataset_id = {v: k for k, v in contiguous.items()}
        for result in coco_results:
            category = result["category_id"]
            if category not in dataset_id:
                raise AssertionError(
                    f"A prediction has class {category}, but '{self._metadata.name}' has only "
                    f"{len(contiguous)} classes with ids 0..{len(contiguous) - 1}"
                )
            result["category_id"] = dataset_id[category]

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        """Names COCO's numbers, logs them, and adds ``AP-<class>`` for several classes."""
        metrics = METRICS[iou_type]
        if coco_eval is None:
            self._logger.warning("No predictions from the model!")
            return {metric: float("nan") for metric in metrics}
        # -1 is pycocotools' "there is nothing of this kind".
        results = {
            metric: float(value * 100 if value >= 0 else "nan")
            for metric, value in zip(metrics, coco_eval.stats)
        }
        self._logger.info("Evaluation results for %s: \n%s", iou_type, create_small_table(results))
        if not np.isfinite(sum(results.values())):
            self._logger.info("Some metrics cannot be computed and are shown as NaN.")
        if class_names is None or len(class_names) <= 1:
            return results

        # [IoU threshold, recall, class, area range, max detections]
        precisions = coco_eval.eval["precision"]
        if len(class_names) != precisions.shape[2]:
            raise AssertionError(
                f"'{self._metadata.name}' has {len(class_names)} thing_classes, its annotations "
                f"{precisions.shape[2]} categories"
            )
        per_class = {}
        for i, name in enumerate(class_names):
            values = precisions[:, :, i, 0, -1]
            values = values[values > -1]
            per_class[name] = float(values.mean() * 100) if values.size else float("nan")
        self._logger.info("Per-category %s AP: \n%s", iou_type, _columns(per_class, "AP"))
        results.update({f"AP-{name}": ap for name, ap in per_class.items()})
        return results


def _columns(values: dict[str, float], header: str) -> str:
    """A table with up to three (category, value) pairs per row."""
    flat = list(itertools.chain(*values.items()))
    columns = min(6, len(flat))
    rows = itertools.zip_longest(*[flat[i::columns] for i in range(columns)])
    return tabulate(
        rows,
        tablefmt="pipe",
        floatfmt=".3f",
        headers=["category", header] * (columns // 2),
        numalign="left",
    )


__getattr__ = missing_getattr(__name__)
