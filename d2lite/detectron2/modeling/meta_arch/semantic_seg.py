"""Per-pixel semantic segmentation: a backbone, a head, resized logits."""

import torch
from torch import Tensor, nn

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList
from detectron2.utils.registry import Registry

from ..backbone import Backbone, build_backbone
from ..postprocessing import sem_seg_postprocess
from .build import META_ARCH_REGISTRY

__all__ = ["SEM_SEG_HEADS_REGISTRY", "SemanticSegmentor", "build_sem_seg_head"]

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
SEM_SEG_HEADS_REGISTRY.__doc__ = """
Segmentation heads (and Mask2Former's pixel decoders) by name. An entry is called as
``entry(cfg, input_shape: dict[str, ShapeSpec])`` and returns an ``nn.Module``.
"""


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Builds ``cfg.MODEL.SEM_SEG_HEAD.NAME`` on feature maps of the given shapes.

    Raises:
        KeyError: the name is not registered.
    """
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(nn.Module):
    """Runs a backbone and a head that classifies every pixel.

    Args:
        backbone: gives the feature maps.
        sem_seg_head: called as ``head(features, targets)``, returns (logits, losses). Targets are
            ``[B, H, W]`` int64, or None outside training; ``head.ignore_value`` marks padding.
        pixel_mean, pixel_std: one value per channel, on the scale and in the order of the images.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: list[float],
        pixel_std: list[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        mean = torch.as_tensor(pixel_mean, dtype=torch.float32).view(-1, 1, 1)
        std = torch.as_tensor(pixel_std, dtype=torch.float32).view(-1, 1, 1)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """Where images are moved to."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Segments a batch.

        Args:
            batched_inputs: one dict per image: ``image`` ``[C, H, W]``; for training ``sem_seg``
                ``[H, W]`` int64; optionally ``height`` and ``width`` of the output.

        Returns:
            losses in training; else one ``{"sem_seg": [K, height, width] logits}`` per image.
        """
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        images = [(x - self.pixel_mean) / self.pixel_std for x in images]
        images = self._batch(images)
        features = self.backbone(images.tensor)

        targets = None
        if "sem_seg" in batched_inputs[0]:
            labels = [x["sem_seg"].to(self.device, non_blocking=True) for x in batched_inputs]
            targets = self._batch(labels, self.sem_seg_head.ignore_value).tensor
        logits, losses = self.sem_seg_head(features, targets)
        if self.training:
            return losses

        outputs = []
        for result, record, size in zip(logits, batched_inputs, images.image_sizes):
            height, width = record.get("height", size[0]), record.get("width", size[1])
            outputs.append({"sem_seg": sem_seg_postprocess(result, size, height, width)})
        return outputs

    def _batch(self, tensors: list[Tensor], pad_value: float = 0.0) -> ImageList:
        """Pads to one size that the backbone accepts."""
        return ImageList.from_tensors(
            tensors,
            self.backbone.size_divisibility,
            pad_value=pad_value,
            padding_constraints=self.backbone.padding_constraints,
        )


__getattr__ = missing_getattr(__name__)
