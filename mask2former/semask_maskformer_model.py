"""The meta architecture of SeMask (Jain et al., ICCV workshops 2023) on Mask2Former."""

from __future__ import annotations

from torch import Tensor

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList

from .maskformer_model import MaskFormer, ground_truth, unpaired
from .modeling.errors import BackboneError
from .modeling.semantic_maps import semantic_target


@META_ARCH_REGISTRY.register()
class SeMaskMaskFormer(MaskFormer):
    """``MaskFormer`` whose backbone also predicts a class per pixel, supervised by ``loss_cate``.

    For every task, as ``MaskFormer``; needs a backbone that gives (features, class maps) and a
    ``BranchMaskFormerHead``. Inference does not use the class maps.
    """

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """As ``MaskFormer.forward``.

        Args:
            batched_inputs: as there; in training ``sem_seg`` (int64 [H, W], of the image's size) is
                used where given, else the label map is painted from ``instances``: see
                :func:`~mask2former.modeling.semantic_maps.semantic_target`.
        """
        batched_inputs = unpaired(batched_inputs)
        images = self.preprocess_image(batched_inputs)  # [B, 3, H, W], padded
        outputs = self.predictions(images.tensor)
        if not self.training:
            return self.inference(outputs, images, batched_inputs)
        targets = self.prepare_targets(ground_truth(batched_inputs), images)
        self._add_semantic_targets(targets, batched_inputs, images)
        return self.losses(outputs, targets)

    def predictions(self, images: Tensor) -> dict:
        """As ``MaskFormer.predictions``; in training with the semantic prediction, ``semantic``."""
        features, class_maps = self._backbone_pair(images)  # res2 ... res5 each
        pair = self.sem_seg_head(features, class_maps)
        if not isinstance(pair, tuple):
            raise BackboneError(
                "MODEL.META_ARCHITECTURE SeMaskMaskFormer needs a head that takes class maps, but "
                f"MODEL.SEM_SEG_HEAD.NAME builds a {type(self.sem_seg_head).__name__}: set it to "
                "BranchMaskFormerHead"
            )
        outputs, semantic = pair
        if self.training:
            outputs["semantic"] = semantic
        return outputs

    def _backbone_pair(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        pair = self.backbone(images)
        if not isinstance(pair, tuple):
            raise BackboneError(
                "MODEL.META_ARCHITECTURE SeMaskMaskFormer needs a backbone that gives class maps, "
                f"but MODEL.BACKBONE.NAME builds a {type(self.backbone).__name__}: set it to "
                "D2SeMaskSwinTransformer, or MODEL.META_ARCHITECTURE to MaskFormer (with "
                "MODEL.SEM_SEG_HEAD.NAME MaskFormerHead)"
            )
        return pair

    def _add_semantic_targets(
        self, targets: list[dict], batched_inputs: list[dict], images: ImageList
    ) -> None:
        size = tuple(images.tensor.shape[-2:])
        ignore = self.sem_seg_head.ignore_value
        for i, (target, record) in enumerate(zip(targets, batched_inputs)):
            if record.get("sem_seg") is not None:
                self._check_sem_seg(record["sem_seg"], ignore, i)
            target["sem_seg"] = semantic_target(record, size, ignore, self.device)

    def _check_sem_seg(self, labels: Tensor, ignore: int, image: int) -> None:
        # As for gt_classes, labels that are on a GPU already are not looked at.
        num_classes = self.criterion.num_classes
        if labels.device.type != "cpu":
            return
        wrong = labels[(labels != ignore) & ((labels < 0) | (labels >= num_classes))]
        if len(wrong):
            raise ValueError(
                f"sem_seg of image {image} of the batch has label {int(wrong[0])}, but "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes} and "
                f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE {ignore}: set them to what the data set has"
            )
