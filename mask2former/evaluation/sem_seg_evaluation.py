"""mIoU: detectron2's SemSegEvaluator with its predictions on disk instead of in memory."""

import logging
import os
from collections import OrderedDict

from detectron2.evaluation import SemSegEvaluator as DetectronSemSegEvaluator
from detectron2.utils import comm

from .spool import Spool, write_json_list

logger = logging.getLogger(__name__)


class SemSegEvaluator(DetectronSemSegEvaluator):
    """Scores ``sem_seg`` outputs ``[K, H, W]``; metrics and files are detectron2's.

    Args:
        dataset_name, distributed, output_dir, ...: of detectron2's evaluator.
        boundary_iou: also boundary IoU, where detectron2 has it (not in release 0.6).
    """

    def __init__(self, dataset_name: str, *args, boundary_iou: bool = True, **kwargs) -> None:
        super().__init__(dataset_name, *args, **kwargs)
        self._compute_boundary_iou = boundary_iou and getattr(self, "_compute_boundary_iou", False)

    def reset(self) -> None:
        super().reset()
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
        self._spool = Spool(self._output_dir)
        self._images = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        pairs = [pair for pair in zip(inputs, outputs) if "sem_seg" in pair[1]]
        self._images += len(pairs)
        super().process([record for record, _ in pairs], [output for _, output in pairs])
        # What detectron2 would gather in a list all through the data set: one mask per class found.
        self._spool.extend(self._predictions)
        self._predictions = []

    def evaluate(self) -> OrderedDict | None:
        """``{"sem_seg": {mIoU, fwIoU, IoU-<class>, ..., mACC, pACC, ACC-<class>, ...}}`` x100.

        None on other processes than the main one; empty if the model gave no ``sem_seg``.
        """
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
