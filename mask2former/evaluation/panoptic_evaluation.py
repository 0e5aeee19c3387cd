"""PQ evaluator: a drop-in for detectron2's COCOPanopticEvaluator that needs no temporary PNGs.

Every prediction is compared with its ground truth as soon as it arrives, in a thread beside the
network; what is kept, a few numbers per image, is kept on disk. Keys, files and the logged table
are those of the original.
"""

import json
import logging
import os
from collections.abc import Collection

import numpy as np
import torch

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from .background import Background
from .errors import EvaluationError
from .id_map import read_id_map
from .panoptic_statistics import image_statistics
from .panoptic_tables import PanopticReport, results_table
from .spool import Spool

logger = logging.getLogger(__name__)


class COCOPanopticEvaluator(DatasetEvaluator):
    """Panoptic quality, streamed.

    Consumes ``output["panoptic_seg"] = (map, segments_info)`` with an integer ``[H, W]`` map (0 is
    void) and entries ``{id, isthing, category_id (contiguous)}``; entries without ``isthing`` carry
    data set ids already. Without entries (None) the map holds ``category * label_divisor +
    instance`` and -1 for void.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        allow_missing: bool = False,
        details: bool = False,
        fast: bool = True,
    ):
        """
        Args:
            dataset_name: its metadata needs ``panoptic_json``, ``panoptic_root`` and the two
                ``*_dataset_id_to_contiguous_id`` maps.
            output_dir: where ``predictions.json`` goes; None writes nothing.
            allow_missing: evaluate the images that were predicted instead of refusing when some are
                missing (test images that could not be read and were skipped).
            details: add Acc_th, Prec_th (:func:`~.panoptic_tables.pixel_scores`) and PQ, SQ and RQ
                of every class to the results (TEST.PANOPTIC_DETAILS, or intra-batch supervision);
                the log has them anyway.
            fast: read and compare maps with compiled kernels (MODEL.FAST).
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        self._to_dataset_id = {
            True: _inverse(self._metadata.thing_dataset_id_to_contiguous_id),
            False: _inverse(self._metadata.stuff_dataset_id_to_contiguous_id),
        }
        self._output_dir = output_dir
        self._allow_missing = allow_missing
        self._details = details
        self._fast = fast
        with open(self._metadata.panoptic_json) as file:
            self._gt_json = json.load(file)
        self._categories = {c["id"]: c for c in self._gt_json["categories"]}
        self._gt = {a["image_id"]: a for a in self._gt_json.get("annotations", [])}
        self.reset()

    def reset(self) -> None:
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
        self._predictions = Spool(self._output_dir)  # entries of predictions.json
        self._statistics = Spool(self._output_dir)  # (image id, category id -> statistics)
        self._background = Background(lambda counted: self._statistics.extend([counted]))

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for item, output in zip(inputs, outputs):
            panoptic_map, segments = output["panoptic_seg"]
            pixels = _to_numpy(panoptic_map)
            if segments is None:
                pixels, segments = self._decode_divisor_map(pixels)
            segments = [self._with_dataset_ids(segment) for segment in segments]
            image_id = item["image_id"]
            stem = os.path.splitext(os.path.basename(item["file_name"]))[0]
            entry = {"image_id": image_id, "file_name": stem + ".png", "segments_info": segments}
            self._predictions.extend([entry])
            if not self._gt:
                continue
            if image_id not in self._gt:
                raise EvaluationError(
                    f"Image {image_id} ({item['file_name']}) was predicted, but "
                    f"{self._metadata.panoptic_json} has no annotation for it"
                )
            self._background.submit(
                image_id, self._compare, image_id, pixels, segments, size=pixels.nbytes
            )

    def evaluate(self) -> dict | None:
        """Returns ``{"panoptic_seg": {PQ, SQ, RQ, PQ_th, ...}}`` (x100) on the main process.

        Raises:
            EvaluationError: images were not predicted, and ``allow_missing`` is off.
        """
        self._background.finish()
        predictions, statistics = self._predictions.gathered(), self._statistics.gathered()
        if predictions is None:
            return None
        self._write_predictions(predictions)
        if not self._gt:
            logger.info("Annotations are not available for evaluation.")
            return {}
        by_image = dict(statistics)
        self._check_complete(by_image)
        report = PanopticReport(by_image.values(), self._categories)
        logger.info("Panoptic Evaluation Results:\n%s", results_table(report.pq))
        logger.info("Panoptic results by class:\n%s", report.class_table())
        logger.info("Things that were found (a definition of our own): %s", _rounded(report))
        results = report.results()
        if self._details:
            results |= report.things() | report.classes()
        return {"panoptic_seg": results}

    def _compare(self, image_id, pixels: np.ndarray, segments: list[dict]) -> tuple:
        gt = self._gt[image_id]
        path = os.path.join(self._metadata.panoptic_root, gt["file_name"])
        statistics = image_statistics(
            read_id_map(path, self._fast),
            gt["segments_info"],
            _as_uint32(pixels),
            segments,
            self._categories.keys(),
            image_id,
            self._fast,
        )
        return image_id, statistics

    def _with_dataset_ids(self, segment: dict) -> dict:
        segment = dict(segment)
        isthing = segment.pop("isthing", None)
        if isthing is not None:
            segment["category_id"] = self._to_dataset_id[bool(isthing)][segment["category_id"]]
        return segment

    def _decode_divisor_map(self, pixels: np.ndarray) -> tuple[np.ndarray, list[dict]]:
        segments = []
        for label in np.unique(pixels[pixels >= 0]).tolist():
            category = label // self._metadata.label_divisor
            isthing = category in self._to_dataset_id[True]
            segments.append({"id": label + 1, "category_id": category, "isthing": isthing})
        return pixels + 1, segments

    def _check_complete(self, predictions: Collection) -> None:
        missing = [image_id for image_id in self._gt if image_id not in predictions]
        if not missing:
            return
        message = (
            f"{len(missing)} of {len(self._gt)} images of {self._metadata.name} were not "
            f"predicted, the first is image {missing[0]}"
        )
        if not self._allow_missing or not predictions:
            raise EvaluationError(message)
        logger.warning("%s; the result is over the others", message)

    def _write_predictions(self, predictions: Spool) -> None:
        if not self._output_dir:
            return
        by_image = {prediction["image_id"]: prediction for prediction in predictions}
        content = {**self._gt_json, "annotations": list(by_image.values())}
        with open(os.path.join(self._output_dir, "predictions.json"), "w") as file:
            json.dump(content, file)


def _rounded(report: PanopticReport) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in report.things().items())


def _inverse(mapping: dict[int, int]) -> dict[int, int]:
    return {value: key for key, value in mapping.items()}


def _to_numpy(panoptic_map) -> np.ndarray:
    if isinstance(panoptic_map, torch.Tensor):
        panoptic_map = panoptic_map.cpu().numpy()
    return np.asarray(panoptic_map)


def _as_uint32(pixels: np.ndarray) -> np.ndarray:
    """Ids modulo 2^32; what has as many bits already is not copied."""
    return pixels.view(np.uint32) if pixels.dtype == np.int32 else pixels.astype(np.uint32)
