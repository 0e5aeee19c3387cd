"""COCO AP for data sets whose things are not the first contiguous classes (ADE20K, Mapillary)."""

import logging
from collections.abc import Iterator

from .coco_evaluation import COCOEvaluator
from .spool import Spool

logger = logging.getLogger(__name__)


class InstanceSegEvaluator(COCOEvaluator):
    """``COCOEvaluator`` with any set of contiguous thing ids.

    In a panoptic label space things and stuff are interleaved, so thing ids have gaps, which
    COCOEvaluator refuses. Predicted classes that are no things cannot be evaluated; they are left
    out and counted in a warning.
    """

    def _contiguous_to_dataset_id(self) -> dict[int, int] | None:
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        return None if ids is None else {c: dataset_id for dataset_id, c in ids.items()}

    def _with_dataset_ids(self, predictions: Spool) -> Iterator[dict]:
        dataset_id = self._contiguous_to_dataset_id()
        dropped = 0
        for prediction in predictions:
            for result in prediction["instances"]:
                if dataset_id is not None:
                    if result["category_id"] not in dataset_id:
                        dropped += 1
                        continue
                    result["category_id"] = dataset_id[result["category_id"]]
                yield result
        if dropped:
            logger.warning("%d predicted instances of classes that are no things left out", dropped)
