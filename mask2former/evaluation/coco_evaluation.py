"""COCO AP: detectron2's COCOEvaluator with results on disk instead of in memory, and fast AP."""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch

from detectron2.evaluation import COCOEvaluator as DetectronCOCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from .average_precision import AveragePrecision, coco_average_precision
from .background import Background
from .errors import EvaluationError
from .run_lengths import encode_masks
from .spool import Spool, write_json_list

logger = logging.getLogger(__name__)


class InstanceSpool:
    """What COCO and LVIS evaluators share: masks are run-length encoded and spooled as they come.

    Encoding runs beside the network; from a GPU comes one byte a pixel, once.

    Mixed in before an evaluator that has ``_output_dir``, ``_distributed``.
    """

    def reset(self) -> None:
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
        self._predictions = Spool(self._output_dir)
        self._results: OrderedDict = OrderedDict()
        self._background = Background(lambda encoded: self._predictions.extend([encoded]))

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Encodes a batch; inputs have ``image_id``, outputs ``instances`` at the image's size."""
        for record, output in zip(inputs, outputs):
            if "instances" in output:
                image_id = record["image_id"]
                bare, masks = _on_the_host(output["instances"])
                size = 0 if masks is None else masks.nbytes
                self._background.submit(image_id, _encode, image_id, bare, masks, size=size)

    def _gathered(self) -> Spool | None:
        """All predictions on the main process, None on the others or if there are none at all."""
        self._background.finish()
        predictions = self._predictions.gathered() if self._distributed else self._predictions
        if predictions is not None and not len(predictions):
            logger.warning("[%s] Did not receive valid predictions.", type(self).__name__)
            return None
        return predictions

    def _save_predictions(self, predictions: Spool) -> None:
        if self._output_dir:
            path = os.path.join(self._output_dir, "instances_predictions.pth")
            torch.save(list(predictions), path)

    def _save_results(self, results: list[dict], name: str) -> None:
        if self._output_dir:
            path = os.path.join(self._output_dir, name)
            logger.info("Saving results to %s", path)
            write_json_list(path, results)


def _on_the_host(instances: Instances) -> tuple[Instances, np.ndarray | None]:
    """All fields but the masks, and the masks ``[N, H, W]``: bool from a GPU, else as they are."""
    fields = instances.get_fields()
    others = {name: value for name, value in fields.items() if name != "pred_masks"}
    bare = Instances(instances.image_size, **others).to("cpu")
    masks = fields.get("pred_masks")
    if masks is None:
        return bare, None
    if masks.device.type != "cpu":
        masks = _as_bool(masks).cpu()
    return bare, masks.numpy()


def _as_bool(masks):
    """As by a conversion to bytes, which is what detectron2 encodes."""
    return masks if masks.dtype in (torch.bool, np.bool_) else masks >= 1


def _encode(image_id: object, bare: Instances, masks: np.ndarray | None) -> dict:
    results = instances_to_coco_json(bare, image_id)
    if masks is not None:
        for result, rle in zip(results, encode_masks(_as_bool(masks))):
            result["segmentation"] = rle
    return {"image_id": image_id, "instances": results}


class COCOEvaluator(InstanceSpool, DetectronCOCOEvaluator):
    """AP of boxes and masks by COCO's rules.

    Keys, files and tables are those of detectron2's evaluator.

    Args:
        dataset_name, tasks, distributed, output_dir, ...: of detectron2's evaluator.
        engine: TEST.COCO_EVAL, see :mod:`~mask2former.evaluation.average_precision`.
        only_seen: images that were not predicted (unreadable ones, skipped) do not count as misses.
    """

    def __init__(
        self, dataset_name: str, *args, engine: str = "fast", only_seen: bool = False, **kwargs
    ):
        super().__init__(dataset_name, *args, **kwargs)
        self._engine = engine
        self._only_seen = only_seen

    def evaluate(self, img_ids: list | None = None) -> OrderedDict:
        """The metrics x100 by task on the main process, ``{}`` on the others.

        Args:
            img_ids: only these images; default: all of the data set.

        Raises:
            EvaluationError: a predicted class is not one of the data set.
        """
        self._results = OrderedDict()
        predictions = self._gathered()
        if predictions is None:
            return self._results
        if img_ids is None and self._only_seen:
            img_ids = sorted({prediction["image_id"] for prediction in predictions})
        self._eval_predictions(predictions, img_ids)
        return OrderedDict((task, dict(metrics)) for task, metrics in self._results.items())

    def _eval_predictions(self, predictions: Spool, img_ids: list | None = None) -> None:
        logger.info("Preparing results for COCO format ...")
        self._save_predictions(predictions)
        results = list(self._with_dataset_ids(predictions))
        self._save_results(results, "coco_instances_results.json")
        if not self._do_evaluation:
            logger.info("Annotations are not available for evaluation.")
            return
        for task in sorted(self._tasks or self._tasks_from_predictions(results)):
            evaluation = self._average_precision(results, task, img_ids) if results else None
            self._results[task] = self._derive_coco_results(
                evaluation, task, class_names=self._metadata.get("thing_classes")
            )

    def _average_precision(self, results: list[dict], task: str, img_ids) -> AveragePrecision:
        if task not in ("bbox", "segm"):
            raise EvaluationError(f"COCO evaluation of {task} is not supported, but bbox and segm")
        logger.info("Evaluating %s of %d predictions ...", task, len(results))
        evaluation = coco_average_precision(
            self._coco_api.dataset,
            results,
            task,
            engine=self._engine,
            limits=tuple(self._max_dets_per_image or (1, 10, 100)),
            image_ids=img_ids,
        )
        if evaluation.summary:
            logger.info("%s\n%s", task, evaluation.summary)
        return evaluation

    def _contiguous_to_dataset_id(self) -> dict[int, int] | None:
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if ids is None:
            return None
        if sorted(ids.values()) != list(range(len(ids))):
            raise EvaluationError(
                f"thing_dataset_id_to_contiguous_id of {self._metadata.name} must map to "
                f"0..{len(ids) - 1}; InstanceSegEvaluator takes any ids"
            )
        return {contiguous: dataset_id for dataset_id, contiguous in ids.items()}

    def _with_dataset_ids(self, predictions: Spool) -> Iterator[dict]:
        """All results one by one, with the data set's category ids."""
        dataset_id = self._contiguous_to_dataset_id()
        for prediction in predictions:
            for result in prediction["instances"]:
                if dataset_id is not None:
                    category = result["category_id"]
                    if category not in dataset_id:
                        raise EvaluationError(
                            f"Class {category} was predicted, but {self._metadata.name} has "
                            f"{len(dataset_id)} thing classes: does MODEL.SEM_SEG_HEAD.NUM_CLASSES "
                            "belong to this data set?"
                        )
                    result["category_id"] = dataset_id[category]
                yield result
