"""Test-time augmentation for semantic segmentation: resized and mirrored copies, averaged."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.modeling import DatasetMapperTTA
from detectron2.modeling.test_time_augmentation import HFlipTransform

# Outputs that a model can compute beside sem_seg. They cannot be averaged, so they are switched off
# while the copies run.
_OTHER_OUTPUTS = ("panoptic_on", "instance_on")


class SemanticSegmentorWithTTA(nn.Module):
    """Averages a model's ``sem_seg`` over augmented copies of the image [MaskFormer].

    The copies (TEST.AUG.MIN_SIZES, MAX_SIZE, FLIP) go through the model one at a time, and only
    their running sum is kept: memory is that of one image at the largest size, whatever the number
    of copies. Predictions of mirrored copies are mirrored back first.

    Also for models that give panoptic or instance output: these are left out, and ``sem_seg`` is
    computed as it would be beside them.

    Args:
        cfg: a config, for the default of ``tta_mapper``.
        model: gives ``sem_seg`` ``[K, height, width]`` in evaluation; may be wrapped for DDP.
        tta_mapper: makes the copies of one input; default: detectron2's ``DatasetMapperTTA(cfg)``.
        batch_size: must be 1, as in the published class.

    Raises:
        ValueError: ``batch_size`` is not 1, or the model's semantic output is off.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        tta_mapper: Callable[[dict], list[dict]] | None = None,
        batch_size: int = 1,
    ) -> None:
        super().__init__()
        if batch_size != 1:
            raise ValueError(f"SemanticSegmentorWithTTA: batch_size must be 1, not {batch_size}")
        if isinstance(model, DistributedDataParallel):
            model = model.module
        if not getattr(model, "semantic_on", True):
            raise ValueError(
                "test-time augmentation averages sem_seg, which the model does not give: set "
                "MODEL.MASK_FORMER.TEST.SEMANTIC_ON True or TEST.AUG.ENABLED False"
            )
        self.cfg = cfg.clone()
        self.model = model
        self.tta_mapper = tta_mapper or DatasetMapperTTA(cfg)
        self.batch_size = batch_size

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict[str, Tensor]]:
        """
        Args:
            batched_inputs: as for the model: ``image`` uint8 [3, H, W], ``height`` and ``width`` of
                the output. Without ``image``, ``file_name`` is read in the model's
                ``input_format``.

        Returns:
            Per input ``{"sem_seg": [K, height, width]}``, the mean over all copies.
        """
        return [self._average(self._with_image(record)) for record in batched_inputs]

    def _with_image(self, record: dict) -> dict:
        record = copy.copy(record)
        if "image" not in record:
            pixels = read_image(record["file_name"], getattr(self.model, "input_format", "RGB"))
            chw = np.ascontiguousarray(pixels.transpose(2, 0, 1))
            record["image"] = torch.from_numpy(chw)
        record.setdefault("height", record["image"].shape[1])
        record.setdefault("width", record["image"].shape[2])
        return record

    def _average(self, record: dict) -> dict[str, Tensor]:
        total: Tensor | None = None
        copies = self.tta_mapper(record)
        if not copies:
            raise ValueError("TEST.AUG.MIN_SIZES is empty: there is no copy to average over")
        with _only_semantic(self.model):
            for augmented in copies:
                transforms = augmented.pop("transforms").transforms
                scores = self.model([augmented])[0].pop("sem_seg")  # [K, height, width]
                if any(isinstance(t, HFlipTransform) for t in transforms):
                    scores = scores.flip(-1)
                total = scores if total is None else total.add_(scores)
        return {"sem_seg": total.div_(len(copies))}


@contextmanager
def _only_semantic(model: nn.Module) -> Iterator[None]:
    """Switches the other outputs off; how sem_seg is resized was decided when it was built."""
    before = {name: getattr(model, name) for name in _OTHER_OUTPUTS if hasattr(model, name)}
    for name in before:
        setattr(model, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(model, name, value)
