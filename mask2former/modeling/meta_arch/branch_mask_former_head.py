"""SeMask's head: the head of Mask2Former, and a branch that sums the backbone's class maps."""

from __future__ import annotations

from torch import Tensor

from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from ..mask_predictions import MaskPredictions
from ..semantic_maps import SemanticPrediction
from .mask_former_head import MaskFormerHead


@SEM_SEG_HEADS_REGISTRY.register()
class BranchMaskFormerHead(MaskFormerHead):
    """``MODEL.SEM_SEG_HEAD.NAME: BranchMaskFormerHead``, for backbones that give class maps.

    The branch has no parameters of its own.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        class_maps: dict[str, Tensor],
        mask: Tensor | None = None,
    ) -> tuple[MaskPredictions, SemanticPrediction]:
        """
        Args:
            features: backbone maps ``[B, C_i, H / s_i, W / s_i]``.
            class_maps: by the same names class logits ``[B, K, H / s_i, W / s_i]``.
            mask: handed on to the transformer decoder.

        Returns:
            What ``MaskFormerHead.forward`` gives, and the semantic prediction.
        """
        return self.layers(features, mask), SemanticPrediction(class_maps, self.common_stride)
