"""COCO AP for data sets whose things are not the first contiguous classes (ADE20K, Mapillary)."""

import logging

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class InstanceSegEvaluator(COCOEvaluator):
    """``COCOEvaluator`` with any set of contiguous thing ids.

    In a panoptic label space things and stuff are interleaved, so thing ids have gaps, which
    COCOEvaluator refuses. Here results are renumbered densely first, and detectron2 does the rest.
    Predicted classes that are no things cannot be evaluated; they are left out and counted in a
    warning.
    """

    def __init__(self, dataset_name: str, *args, **kwargs):
        super().__init__(dataset_name, *args, **kwargs)
        things = getattr(self._metadata, "thing_dataset_id_to_contiguous_id", None)
        self._dense_id = None
        if things is not None:
            by_contiguous_id = sorted(things.items(), key=lambda item: item[1])
            self._dense_id = {c: dense for dense, (_, c) in enumerate(by_contiguous_id)}
            content = dict(MetadataCatalog.get(dataset_name).as_dict())
            content["thing_dataset_id_to_contiguous_id"] = {
                dataset_id: dense for dense, (dataset_id, _) in enumerate(by_contiguous_id)
            }
            self._metadata = Metadata(**content)

    def _eval_predictions(self, predictions: list[dict], img_ids=None):
        if self._dense_id is not None:
            predictions = self._renumbered(predictions)
        return super()._eval_predictions(predictions, img_ids)

    def _renumbered(self, predictions: list[dict]) -> list[dict]:
        dropped = 0
        renumbered = []
        for prediction in predictions:
            results = prediction.get("instances", [])
            kept = [
                {**result, "category_id": self._dense_id[result["category_id"]]}
                for result in results
                if result["category_id"] in self._dense_id
            ]
            dropped += len(results) - len(kept)
            renumbered.append({**prediction, "instances": kept})
        if dropped:
            logger.warning("%d predicted instances of classes that are no things left out", dropped)
        return renumbered


class SeenImagesOnly:
    """Mixed in before a COCO evaluator: images that were skipped do not count as misses."""

    def reset(self) -> None:
        super().reset()
        self._seen: list = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        self._seen.extend(item["image_id"] for item in inputs)
        super().process(inputs, outputs)

    def evaluate(self, img_ids=None):
        if img_ids is None:
            img_ids = sorted({i for part in comm.all_gather(self._seen) for i in part})
        return super().evaluate(img_ids=img_ids)
