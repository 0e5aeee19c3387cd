"""Semantic segmentation: mIoU and its relatives from one confusion matrix."""

import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from PIL import Image

from detectron2._missing import missing_getattr
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.comm import all_gather, gather, is_main_process, synchronize
from detectron2.utils.file_io import PathManager

from .evaluator import DatasetEvaluator

__all__ = [
    "DatasetCatalog",
    "DatasetEvaluator",
    "MetadataCatalog",
    "PathManager",
    "SemSegEvaluator",
    "all_gather",
    "is_main_process",
    "load_image_into_numpy_array",
    "synchronize",
]

# Boundaries are this wide, as a share of the image's diagonal (Cheng et al. 2021, section 4).
BOUNDARY_RATIO = 0.02
# OpenCV's erosion works on uint8 label maps.
MAX_CLASSES_WITH_BOUNDARIES = 254


def load_image_into_numpy_array(
    filename: str, copy: bool = False, dtype: np.dtype | type | None = None
) -> np.ndarray:
    """Reads an image file as ``[H, W]`` or ``[H, W, C]``."""
    with PathManager.open(filename, "rb") as f:
        array = np.asarray(Image.open(f), dtype=dtype)
    return array.copy() if copy else array


class SemSegEvaluator(DatasetEvaluator):
    """Evaluates ``sem_seg`` outputs (``[K, H, W]`` scores) against label images.

    Args:
        dataset_name: with metadata ``stuff_classes``, ``ignore_label`` and, optionally,
            ``stuff_dataset_id_to_contiguous_id``; its records have ``file_name`` and
            ``sem_seg_file_name``.
        distributed: gather over all ranks; False evaluates what this process has seen.
        output_dir: for ``sem_seg_predictions.json`` and ``sem_seg_evaluation.pth``.
        sem_seg_loading_fn: ``(filename, dtype=int) -> [H, W]`` of contiguous labels.
        num_classes, ignore_label: accepted for old scripts; must agree with the metadata.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        self._logger = logging.getLogger(__name__)
        meta = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._cpu_device = torch.device("cpu")
        self.input_file_to_gt_file = {
            record["file_name"]: record["sem_seg_file_name"]
            for record in DatasetCatalog.get(dataset_name)
        }

        contiguous = getattr(meta, "stuff_dataset_id_to_contiguous_id", None)
        # Several dataset ids of one class: the last one, which is what {v: k} keeps.
        self._contiguous_id_to_dataset_id = (
            None if contiguous is None else {v: k for k, v in contiguous.items()}
        )
        self._class_names = meta.stuff_classes
        self.sem_seg_loading_fn = sem_seg_loading_fn
        self._num_classes = len(meta.stuff_classes)
        if num_classes is not None and num_classes != self._num_classes:
            raise AssertionError(
                f"num_classes {num_classes}, but '{dataset_name}' has {self._num_classes} "
                "stuff_classes"
            )
        self._ignore_label = ignore_label if ignore_label is not None else meta.ignore_label
        self._compute_boundary_iou = self._num_classes <= MAX_CLASSES_WITH_BOUNDARIES
        if not self._compute_boundary_iou:
            self._logger.warning(
                "Boundary IoU is left out: '%s' has more than %d classes",
                dataset_name,
                MAX_CLASSES_WITH_BOUNDARIES,
            )

    def reset(self) -> None:
        # Rows: prediction, columns: ground truth; the last of each is "ignored".
        shape = (self._num_classes + 1, self._num_classes + 1)
        self._conf_matrix = np.zeros(shape, dtype=np.int64)
        self._b_conf_matrix = np.zeros(shape, dtype=np.int64)
        self._predictions: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Adds a batch; inputs have ``file_name``, outputs ``sem_seg`` ``[K, H, W]``.

        Raises:
            KeyError: an input that is not in the data set.
        """
        for record, output in zip(inputs, outputs):
            scores = output["sem_seg"]
            # Bytes instead of int64 on the way from the device, where labels fit.
            dtype = torch.uint8 if self._num_classes <= 256 else torch.int32
            pred = scores.argmax(dim=0).to(dtype).to(self._cpu_device).numpy()
            gt_file = self.input_file_to_gt_file[record["file_name"]]
            gt = np.array(self.sem_seg_loading_fn(gt_file, dtype=int))
            gt[gt == self._ignore_label] = self._num_classes
            if gt.shape != pred.shape:
                raise ValueError(
                    f"The prediction for {record['file_name']} is {pred.shape}, "
                    f"its label image {gt_file} is {gt.shape}"
                )
            if gt.min() < 0 or gt.max() > self._num_classes:
                raise ValueError(
                    f"{gt_file} has labels from {gt.min()} to {gt.max()}; expected are 0 to "
                    f"{self._num_classes - 1} and the ignore label {self._ignore_label} "
                    f"(metadata of '{self._dataset_name}')"
                )
            self._conf_matrix += self._count(pred, gt)
            if self._compute_boundary_iou:
                self._b_conf_matrix += self._count(self._boundary(pred), self._boundary(gt))
            if self._output_dir:
                self._predictions.extend(self.encode_json_sem_seg(pred, record["file_name"]))

    def evaluate(self) -> OrderedDict | None:
        """The metrics in percent, under the task ``sem_seg``; None on other ranks than 0."""
        if self._distributed:
            synchronize()
            parts = gather((self._conf_matrix, self._b_conf_matrix, self._predictions))
            if not is_main_process():
                return None
            matrices, b_matrices, predictions = zip(*parts)
            self._conf_matrix, self._b_conf_matrix = sum(matrices), sum(b_matrices)
            self._predictions = list(itertools.chain.from_iterable(predictions))

        metrics = self._metrics()
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "sem_seg_predictions.json")
            with PathManager.open(path, "w") as f:
                f.write(json.dumps(self._predictions))
            path = os.path.join(self._output_dir, "sem_seg_evaluation.pth")
            with PathManager.open(path, "wb") as f:
                torch.save(metrics, f)
        results = OrderedDict({"sem_seg": metrics})
        self._logger.info(results)
        return results

    def _count(self, pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
        """The confusion matrix of one image."""
        size = self._num_classes + 1
        cells = gt.reshape(-1) + size * pred.reshape(-1).astype(np.int64)
        return np.bincount(cells, minlength=size * size).reshape(size, size)

    def _boundary(self, labels: np.ndarray) -> np.ndarray:
        """A label map minus its erosion, as detectron2 computes it: on the labels themselves."""
        labels = labels.astype(np.uint8)
        height, width = labels.shape
        iterations = max(1, round(BOUNDARY_RATIO * float(np.hypot(height, width))))
        # Outside of the image is 0, so that the frame of the image counts as a boundary.
        padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=iterations)
        return labels - eroded[1:-1, 1:-1]

    def _metrics(self) -> dict[str, float]:
        """All metrics, in percent; NaN for classes that do not occur."""
        tp, gt, union = _counts(self._conf_matrix)
        acc = np.divide(tp, gt, out=np.full_like(tp, np.nan), where=gt > 0)
        iou = np.divide(tp, union, out=np.full_like(tp, np.nan), where=(gt > 0) & (union > 0))
        b_tp, _, b_union = _counts(self._b_conf_matrix)
        b_iou = np.divide(b_tp, b_union, out=np.full_like(tp, np.nan), where=b_union > 0)

        share = gt / gt.sum() if gt.sum() else gt
        present = ~np.isnan(iou)
        metrics = {
            "mIoU": 100 * _mean(iou),
            "fwIoU": 100 * float(np.sum(iou[present] * share[present])),
        }
        for i, name in enumerate(self._class_names):
            metrics[f"IoU-{name}"] = 100 * float(iou[i])
            if self._compute_boundary_iou:
                metrics[f"BoundaryIoU-{name}"] = 100 * float(b_iou[i])
                metrics[f"min(IoU, B-Iou)-{name}"] = 100 * float(min(iou[i], b_iou[i]))
        metrics["mACC"] = 100 * _mean(acc)
        metrics["pACC"] = 100 * float(tp.sum() / gt.sum()) if gt.sum() else float("nan")
        for i, name in enumerate(self._class_names):
            metrics[f"ACC-{name}"] = 100 * float(acc[i])
        return metrics

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """One {file_name, category_id, segmentation} per label of a prediction.

        Raises:
            AssertionError: a predicted label has no id in the data set.
        """
        encoded = []
        for label in np.unique(sem_seg).tolist():
            dataset_id = label
            if self._contiguous_id_to_dataset_id is not None:
                if label not in self._contiguous_id_to_dataset_id:
                    raise AssertionError(
                        f"Label {label} is not in the metadata of {self._dataset_name}"
                    )
                dataset_id = self._contiguous_id_to_dataset_id[label]
            rle = mask_util.encode(np.asfortranarray(sem_seg == label, dtype=np.uint8))
            rle["counts"] = rle["counts"].decode("utf-8")  # JSON has no bytes
            encoded.append(
                {
                    "file_name": input_file_name,
                    "category_id": int(dataset_id),
                    "segmentation": rle,
                }
            )
        return encoded


def _counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class: true positives, ground truth, union; pixels ignored in ground truth left out."""
    valid = matrix[:-1, :-1].astype(float)
    tp, gt, pred = valid.diagonal().copy(), valid.sum(axis=0), valid.sum(axis=1)
    return tp, gt, gt + pred - tp


def _mean(values: np.ndarray) -> float:
    """Mean of the entries that are not NaN; NaN if there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


__getattr__ = missing_getattr(__name__)
