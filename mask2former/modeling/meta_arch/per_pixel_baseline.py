"""Per-pixel classification heads, the baselines of MaskFormer (Cheng et al., NeurIPS 2021)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from ..transformer_decoder.maskformer_transformer_decoder import StandardTransformerDecoder
from .head import PixelDecoderHead
from .mask_former_head import transformer_in_channels, transformer_memory


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselineHead(PixelDecoderHead):
    """A pixel decoder and a 1 x 1 convolution: class logits of every pixel."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        pixel_decoder: nn.Module,
        loss_weight: float = 1.0,
        ignore_value: int = -1,
        common_stride: int = 4,
    ) -> None:
        """
        Args:
            input_shape: channels and stride of the features used.
            num_classes: classes to predict.
            pixel_decoder: has ``forward_features(features)`` and ``mask_dim``.
            loss_weight: factor of the loss.
            ignore_value: label of pixels without ground truth.
            common_stride: stride of the pixel decoder's output.
        """
        super().__init__(
            input_shape,
            num_classes=num_classes,
            pixel_decoder=pixel_decoder,
            loss_weight=loss_weight,
            ignore_value=ignore_value,
        )
        self.common_stride = common_stride
        self.predictor = self._build_predictor()

    def _build_predictor(self) -> nn.Module:
        predictor = Conv2d(self.pixel_decoder.mask_dim, self.num_classes, kernel_size=1)
        weight_init.c2_msra_fill(predictor)
        return predictor

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return {
            **super().from_config(cfg, input_shape),
            "common_stride": cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """
        Args:
            features: backbone maps ``[B, C_i, H / s_i, W / s_i]``.
            targets: in training, int64 labels ``[B, H, W]``.

        Returns:
            In training None and the losses; otherwise logits ``[B, K, H, W]`` and no losses.
        """
        logits, aux_logits = self.layers(features)
        if self.training:
            losses = self.losses(logits, targets)
            for i, aux in enumerate(aux_logits):
                losses[f"loss_sem_seg_{i}"] = self.loss(aux, targets)
            return None, losses
        return self._upsample(logits), {}

    def layers(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits ``[B, K, H / 4, W / 4]``, and those of earlier decoder layers, if any."""
        mask_features, _, _ = self.pixel_decoder.forward_features(features)
        return self.predictor(mask_features), []

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted mean cross entropy over labelled pixels at full resolution, a scalar.

        Args:
            logits: ``[B, K, H / 4, W / 4]``, rounded up.
            targets: int64 ``[B, H, W]``; ``ignore_value`` does not count.
        """
        height, width = targets.shape[-2:]
        # Full precision also under autocast. Sides that are no multiple of the stride leave a rest.
        logits = self._upsample(logits.float())[..., :height, :width]  # [B, K, H, W]
        loss = F.cross_entropy(logits, targets, ignore_index=self.ignore_value)
        return loss * self.loss_weight

    def losses(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The published form of :meth:`loss`: under the name ``loss_sem_seg``."""
        return {"loss_sem_seg": self.loss(predictions, targets)}

    def _upsample(self, logits: Tensor) -> Tensor:
        return F.interpolate(
            logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False
        )


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselinePlusHead(PerPixelBaselineHead):
    """The same with a transformer decoder: one query per class, its mask are the class logits."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_predictor: nn.Module,
        transformer_in_feature: str,
        deep_supervision: bool,
        **baseline_options,
    ) -> None:
        """
        Args:
            transformer_predictor: transformer decoder with as many queries as classes.
            transformer_in_feature: ``transformer_encoder`` or the name of a backbone feature.
            deep_supervision: compute the loss for every decoder layer.
            baseline_options: the keywords of ``PerPixelBaselineHead``.
        """
        super().__init__(input_shape, **baseline_options)
        self.predictor = transformer_predictor
        self.transformer_in_feature = transformer_in_feature
        self.deep_supervision = deep_supervision

    def _build_predictor(self) -> None:
        return None  # handed in

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return {
            **super().from_config(cfg, input_shape),
            "transformer_predictor": StandardTransformerDecoder(
                cfg, transformer_in_channels(cfg, input_shape), mask_classification=False
            ),
            "transformer_in_feature": cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE,
            "deep_supervision": cfg.MODEL.MASK_FORMER.DEEP_SUPERVISION,
        }

    def layers(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See the base class; the auxiliary logits are empty without deep supervision."""
        outputs = self.pixel_decoder.forward_features(features)
        memory = transformer_memory(self.transformer_in_feature, features, outputs)
        predictions = self.predictor(memory, outputs[0])
        aux = predictions["aux_outputs"] if self.deep_supervision else []
        return predictions["pred_masks"], [output["pred_masks"] for output in aux]
