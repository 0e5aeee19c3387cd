"""mIoU: detectron2's SemSegEvaluator, counting beside the network, with predictions on disk."""

import logging
import os
from collections import OrderedDict

import numpy as np
import torch

from detectron2.evaluation import SemSegEvaluator as DetectronSemSegEvaluator
from detectron2.utils import comm

from .background import Background
from .errors import EvaluationError
from .run_lengths import encode_labels
from .spool import Spool, write_json_list

logger = logging.getLogger(__name__)


class _Labels:
    """A prediction of which the best class is known: what detectron2 asks of it is ``argmax``."""

    def __init__(self, labels: torch.Tensor) -> None:
        self._labels = labels

    def argmax(self, dim: int) -> torch.Tensor:
        """``[H, W]`` of class ids, on the host."""
        return self._labels


class SemSegEvaluator(DetectronSemSegEvaluator):
    """Scores ``sem_seg`` outputs ``[K, H, W]``; metrics and files are detectron2's.

    Args:
        dataset_name, distributed, output_dir, ...: of detectron2's evaluator.
        boundary_iou: also boundary IoU, where detectron2 has it (not in release 0.6).
    """

    def __init__(self, dataset_name: str, *args, boundary_iou: bool = True, **kwargs) -> None:
        super().__init__(dataset_name, *args, **kwargs)
        self._compute_boundary_iou = boundary_iou and getattr(self, "_compute_boundary_iou", False)
        # One thread: each image is added to the same sums.
        self._background = Background(self._keep, threads=1)

    def reset(self) -> None:
        self._background.drop()
        super().reset()
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
        self._spool = Spool(self._output_dir)
        self._images = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Inputs have ``file_name``; from the device come labels, a byte or two a pixel.

        Raises:
            EvaluationError: an image that is not in the data set.
        """
        for record, output in zip(inputs, outputs):
            if "sem_seg" not in output:
                continue
            if record["file_name"] not in self.input_file_to_gt_file:
                raise EvaluationError(
                    f"{record['file_name']} was predicted, but {self._dataset_name} has no label "
                    "map for it: file names must be those of the data set's records"
                )
            self._images += 1
            scores = output["sem_seg"]
            dtype = torch.uint8 if len(scores) <= 256 else torch.int32
            labels = scores.argmax(dim=0).to(dtype).cpu()
            self._background.submit(
                record.get("image_id", record["file_name"]),
                *(self._add, record, labels),
                size=labels.numel() * labels.element_size(),
            )

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """One ``{file_name, category_id, segmentation}`` per label of a map, as detectron2's.

        Args:
            sem_seg: contiguous class ids, integers ``[H, W]``.
            input_file_name: written as ``file_name``.

        Raises:
            AssertionError: an id that the metadata do not know.
        """
        ids = self._contiguous_id_to_dataset_id
        encoded = []
        for label, rle in encode_labels(sem_seg).items():
            if ids is not None and label not in ids:
                raise AssertionError(
                    f"Label {label} is not in the metadata of {self._dataset_name}"
                )
            category = label if ids is None else int(ids[label])
            encoded.append(
                {"file_name": input_file_name, "category_id": category, "segmentation": rle}
            )
        return encoded

    def _add(self, record: dict, labels: torch.Tensor) -> list[dict]:
        """Counts one image (in detectron2's code) and gives what it adds to the predictions."""
        super().process([record], [{"sem_seg": _Labels(labels)}])
        predictions, self._predictions = self._predictions, []
        return predictions

    def _keep(self, predictions: list[dict]) -> None:
        # What detectron2 would gather in a list all through the data set: one mask per class found.
        self._spool.extend(predictions)

    def evaluate(self) -> OrderedDict | None:
        """``{"sem_seg": {mIoU, fwIoU, IoU-<class>, ..., mACC, pACC, ACC-<class>, ...}}`` x100.

        None on other processes than the main one; empty if the model gave no ``sem_seg``.
        """
        self._background.finish()
        spool = self._spool.gathered() if self._distributed else self._spool
        images = self._total_images()
        results = super().evaluate() if images else OrderedDict()
        if spool is None or results is None:
            return None
        if not images:
            logger.warning(
                "The model gives no sem_seg (MODEL.MASK_FORMER.TEST.SEMANTIC_ON): mIoU is left out"
            )
        elif self._output_dir:
            write_json_list(os.path.join(self._output_dir, "sem_seg_predictions.json"), spool)
        return results

    def _total_images(self) -> int:
        return sum(comm.all_gather(self._images)) if self._distributed else self._images
