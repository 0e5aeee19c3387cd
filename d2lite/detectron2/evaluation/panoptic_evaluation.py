"""Panoptic quality (Kirillov et al., CVPR 2019): through panopticapi where it is installed."""

import io
import itertools
import json
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from PIL import Image
from tabulate import tabulate

from detectron2._missing import missing_getattr
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from .evaluator import DatasetEvaluator

__all__ = ["COCOPanopticEvaluator", "DatasetEvaluator", "MetadataCatalog", "PathManager", "comm"]

logger = logging.getLogger(__name__)


class COCOPanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ of ``panoptic_seg`` outputs.

    Args:
        dataset_name: with metadata ``panoptic_json``, ``panoptic_root``,
            ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``; and
            ``label_divisor`` for models that return no segments_info.
        output_dir: for ``predictions.json``.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        self._metadata = MetadataCatalog.get(dataset_name)
        self._thing_ids = {
            v: k for k, v in self._metadata.thing_dataset_id_to_contiguous_id.items()
        }
        self._stuff_ids = {
            v: k for k, v in self._metadata.stuff_dataset_id_to_contiguous_id.items()
        }
        self._output_dir = output_dir
        if output_dir is not None:
            PathManager.mkdirs(output_dir)

    def reset(self) -> None:
        self._predictions: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Takes a batch.

        Args:
            inputs: with ``file_name`` and ``image_id``.
            outputs: ``panoptic_seg`` = (``[H, W]`` ids, segments_info). With None for the latter
                the map holds ``category * label_divisor + instance``, -1 for void.
        """
        for record, output in zip(inputs, outputs):
            segment_map, segments = output["panoptic_seg"]
            segment_map = segment_map.cpu().numpy()
            if segments is None:
                segment_map, segments = self._split_labels(segment_map)
            stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
            self._predictions.append(
                {
                    "image_id": record["image_id"],
                    "file_name": f"{stem}.png",
                    "png_string": _encode_png(segment_map),
                    "segments_info": [self._with_dataset_id(s) for s in segments],
                }
            )

    def _split_labels(self, labels: np.ndarray) -> tuple[np.ndarray, list[dict]]:
        """Ids (0 is void) and segments_info of a map of ``category * divisor + instance``."""
        things = set(self._metadata.thing_dataset_id_to_contiguous_id.values())
        segments = []
        for label in np.unique(labels).tolist():
            if label != -1:
                category = label // self._metadata.label_divisor
                segments.append(
                    {"id": label + 1, "category_id": category, "isthing": category in things}
                )
        return labels + 1, segments

    def _with_dataset_id(self, segment: dict) -> dict:
        """A segment with the data set's category id and without ``isthing``."""
        segment = dict(segment)
        is_thing = segment.pop("isthing", None)
        if is_thing is not None:
            ids = self._thing_ids if is_thing else self._stuff_ids
            segment["category_id"] = ids[segment["category_id"]]
        return segment

    def evaluate(self) -> OrderedDict | None:
        """The scores, in percent, under the task ``panoptic_seg``; None on other ranks than 0."""
        comm.synchronize()
        predictions = list(itertools.chain.from_iterable(comm.gather(self._predictions)))
        if not comm.is_main_process():
            return None
        pq_compute = _import_pq_compute()
        gt_json = PathManager.get_local_path(self._metadata.panoptic_json)
        gt_folder = PathManager.get_local_path(self._metadata.panoptic_root)
        with tempfile.TemporaryDirectory(prefix="panoptic_eval") as folder:
            logger.info("Writing all panoptic predictions to %s ...", folder)
            for prediction in predictions:
                with open(os.path.join(folder, prediction["file_name"]), "wb") as f:
                    f.write(prediction.pop("png_string"))
            with open(gt_json) as f:
                content = json.load(f)
            content["annotations"] = predictions
            path = os.path.join(self._output_dir or folder, "predictions.json")
            with PathManager.open(path, "w") as f:
                f.write(json.dumps(content))
            pq = pq_compute(
                gt_json,
                PathManager.get_local_path(path),
                gt_folder=gt_folder,
                pred_folder=folder,
            )
        metrics = {}
        for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
            for name in ("pq", "sq", "rq"):
                metrics[f"{name.upper()}{suffix}"] = 100 * pq[group][name]
        _print_panoptic_results(pq)
        return OrderedDict(panoptic_seg=metrics)


def _import_pq_compute() -> Callable[..., dict]:
    """panopticapi's function, or our own of the same rules: the package is not on the index."""
    try:
        from panopticapi.evaluation import pq_compute
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "panopticapi":
            raise
        from ._panoptic_quality import pq_compute

        logger.info("panopticapi is not installed: panoptic quality by d2lite's own function")
    return pq_compute


def _encode_png(segment_map: np.ndarray) -> bytes:
    """COCO's panoptic image: id = R + 256 G + 256^2 B."""
    ids = segment_map.astype(np.uint32)
    rgb = np.stack([(ids >> shift) & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(rgb).save(buffer, format="PNG")
        return buffer.getvalue()


def _print_panoptic_results(pq_res: dict) -> None:
    """Logs the table of PQ, SQ, RQ for all, things and stuff."""
    rows = [
        [name, *(pq_res[name][k] * 100 for k in ("pq", "sq", "rq")), pq_res[name]["n"]]
        for name in ("All", "Things", "Stuff")
    ]
    table = tabulate(
        rows,
        headers=["", "PQ", "SQ", "RQ", "#categories"],
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )
    logger.info("Panoptic Evaluation Results:\n%s", table)


__getattr__ = missing_getattr(__name__)
