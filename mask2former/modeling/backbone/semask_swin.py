"""SeMask-Swin (Jain et al., ICCV workshops 2023): Swin stages that predict and look at classes."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from detectron2.modeling import BACKBONE_REGISTRY, ShapeSpec
from mask2former.ops import checkpoint

from ..errors import BackboneError
from .semask_swin_blocks import SemanticLayer
from .swin import BasicLayer, D2SwinTransformer, SwinTransformer

__all__ = ["D2SeMaskSwinTransformer", "SeMaskSwinTransformer", "SemanticStage"]

# With exactly this many classes (ADE20K) the published last stage attends over the whole map.
CLASSES_OF_GLOBAL_LAST_STAGE = 150


class SemanticStage(BasicLayer):
    """A Swin stage with a semantic layer between its blocks and its patch merging."""

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        num_classes: int,
        sem_window_size: int,
        num_sem_blocks: int,
        downsample: bool,
        **options,
    ) -> None:
        """
        Args:
            num_classes, num_sem_blocks: see ``SemanticLayer``.
            sem_window_size: side of its windows.
            downsample, options: as for ``BasicLayer``; a stage without ``downsample`` is the last.
        """
        super().__init__(dim, depth, num_heads, downsample=downsample, **options)
        is_global = not downsample and num_classes == CLASSES_OF_GLOBAL_LAST_STAGE
        patch_merging = self.downsample
        del self.downsample  # it stands behind the semantic layer in published checkpoints
        self.semantic_layer = SemanticLayer(
            dim,
            num_classes,
            window_size=None if is_global else sem_window_size,
            num_blocks=num_sem_blocks,
        )
        self.downsample = patch_merging

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            x: ``[B, H, W, C]``.

        Returns:
            The stage's output ``[B, H, W, C]``, the next stage's input (see ``BasicLayer``) and
            class scores ``[B, H, W, K]``.
        """
        x = self.run_blocks(x)
        if self.use_checkpoint and self.training:
            x, scores = checkpoint(self.semantic_layer, x)
        else:
            x, scores = self.semantic_layer(x)
        return x, x if self.downsample is None else self.downsample(x), scores


class SeMaskSwinTransformer(SwinTransformer):
    """``SwinTransformer`` made of ``SemanticStage``; gives class scores beside the features."""

    def __init__(
        self, *, num_classes: int, sem_window_size: int = 7, num_sem_blocks: int = 1, **swin_options
    ) -> None:
        """
        Args:
            num_classes: K, the classes of the data set.
            sem_window_size: side of the semantic layers' windows.
            num_sem_blocks: attention blocks of each semantic layer.
            swin_options: the keywords of ``SwinTransformer``.

        Raises:
            BackboneError: ``num_sem_blocks`` or ``sem_window_size`` below 1.
        """
        stage = partial(
            SemanticStage,
            num_classes=num_classes,
            sem_window_size=sem_window_size,
            num_sem_blocks=num_sem_blocks,
        )
        super().__init__(build_stage=stage, **swin_options)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """
        Args:
            x: images, ``[B, in_chans, H, W]``.

        Returns:
            The features of ``SwinTransformer.forward``, and by the same names the class scores
            (logits) ``[B, K, H / 2^(i+2), W / 2^(i+2)]`` of the same stages.
        """
        x = self.embed(x)  # [B, H/4, W/4, C]
        features, class_maps = {}, {}
        for i, layer in enumerate(self.layers):
            stage, x, scores = layer(x)  # [B, h, w, C * 2^i], next input, [B, h, w, K]
            if i in self.out_indices:
                features[f"res{i + 2}"] = self.normed(i, stage)
                class_maps[f"res{i + 2}"] = scores.permute(0, 3, 1, 2)
        return features, class_maps


@BACKBONE_REGISTRY.register()
class D2SeMaskSwinTransformer(D2SwinTransformer, SeMaskSwinTransformer):
    """``SeMaskSwinTransformer`` under ``MODEL.BACKBONE.NAME: D2SeMaskSwinTransformer``.

    Needs ``MODEL.META_ARCHITECTURE: SeMaskMaskFormer`` and ``MODEL.SEM_SEG_HEAD.NAME:
    BranchMaskFormerHead``, since ``forward`` gives a pair. Starts from Swin weights: the semantic
    layers are not in them.
    """

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        if cfg.MODEL.META_ARCHITECTURE == "MaskFormer":
            raise BackboneError(
                "MODEL.BACKBONE.NAME D2SeMaskSwinTransformer gives class maps, which MaskFormer "
                "does not take: set MODEL.META_ARCHITECTURE SeMaskMaskFormer and "
                "MODEL.SEM_SEG_HEAD.NAME BranchMaskFormerHead"
            )
        swin = cfg.MODEL.SWIN
        return super().from_config(cfg, input_shape) | {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "sem_window_size": swin.SEM_WINDOW_SIZE,
            "num_sem_blocks": swin.NUM_SEM_BLOCKS,
        }
