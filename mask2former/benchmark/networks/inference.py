"""Inference on one image, end to end: normalising, the network, panoptic and instance maps."""

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config import CfgNode
from mask2former.modeling.fast_inference import prepare_for_inference
from mask2former.modeling.postprocessing import Frame
from mask2former.modeling.postprocessing.plain import segment_plainly
from mask2former.ops import use_implementation

from .building import build_network, in_transformers, thing_ids
from .setting import Setting
from .trained_like import trained_like

OURS, REFERENCE, TRANSFORMERS = "mask2former", "reference", "transformers"


class Ours:
    """This project as users run it: MODEL.FAST, compiled ops.

    Args:
        network: with the weights; it is copied.
        cfg: its config.
        setting: sizes and precision.
    """

    def __init__(self, network: nn.Module, cfg: CfgNode, setting: Setting) -> None:
        self.setting = setting
        self.network = self._prepared(network, cfg)
        self.settings = self.network._settings()
        height, width = setting.size
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (3, height, width), generator=generator).float()
        self.batch = [
            {"image": image, "height": setting.output[0], "width": setting.output[1]}
        ] * setting.images
        self.padded = tuple(self.images().tensor.shape[-2:])
        head = cfg.MODEL.SEM_SEG_HEAD
        self.trained = trained_like(
            cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES,
            head.NUM_CLASSES,
            (self.padded[0] // head.COMMON_STRIDE, self.padded[1] // head.COMMON_STRIDE),
            setting.device,
        )
        self.trained = tuple(x.expand(setting.images, *x.shape[1:]) for x in self.trained)

    def _prepared(self, network: nn.Module, cfg: CfgNode) -> nn.Module:
        cfg = cfg.clone()
        cfg.MODEL.FAST = True
        cfg.MODEL.COMPILE = self.setting.compiled
        return prepare_for_inference(copy.deepcopy(network), cfg)

    def images(self) -> Any:
        """The normalised and padded batch, an ImageList."""
        return self.network.preprocess_image(self.batch)

    @torch.no_grad()
    def logits(self) -> tuple[Tensor, Tensor]:
        """Class logits [B, Q, K + 1] and mask logits [B, Q, H/4, W/4] of the image."""
        with self.setting.autocast():
            outputs = self.network.predictions(self.images().tensor)
            return outputs["pred_logits"], outputs["pred_masks"]

    @torch.no_grad()
    def segments(self) -> Any:
        """Post-processing of trained-like logits."""
        outputs = dict(zip(("pred_logits", "pred_masks"), self.trained))
        size = self.setting.size
        images = SimpleNamespace(
            tensor=torch.empty(0, *self.padded), image_sizes=[size] * len(self.batch)
        )
        return self.network.inference(outputs, images, self.batch)

    def __call__(self) -> None:
        """Everything, until the device has finished."""
        self.logits()
        self.segments()
        self.setting.synchronize()


class Reference(Ours):
    """The readable paths: MODEL.FAST False, ops in PyTorch, plain post-processing."""

    def _prepared(self, network: nn.Module, cfg: CfgNode) -> nn.Module:
        return copy.deepcopy(network).eval()

    def logits(self) -> tuple[Tensor, Tensor]:
        with use_implementation("reference"):
            return super().logits()

    @torch.no_grad()
    def segments(self) -> Any:
        frame = Frame(self.padded, self.setting.size, self.setting.output)
        return [
            segment_plainly(logits, masks, frame, self.settings)
            for logits, masks in zip(*self.trained)
        ]


class Transformers(Ours):
    """Hugging Face's model with its image processor, which makes maps at 384x384 and resizes them.

    Thresholds are those of the config; as many instances are kept as ours.
    """

    def _prepared(self, network: nn.Module, cfg: CfgNode) -> nn.Module:
        self.model = in_transformers(network, cfg)
        from transformers import Mask2FormerImageProcessor

        self.processor = Mask2FormerImageProcessor()
        self.stuff = set(range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)) - thing_ids(network)
        # Of our network only what prepares images is needed, and the settings.
        network = copy.copy(network)
        network._modules = {}
        return network

    @torch.no_grad()
    def logits(self) -> tuple[Tensor, Tensor]:
        with self.setting.autocast():
            outputs = self.model(pixel_values=self.images().tensor)
        return outputs.class_queries_logits, outputs.masks_queries_logits

    @torch.no_grad()
    def segments(self) -> Any:
        outputs = SimpleNamespace(
            class_queries_logits=self.trained[0], masks_queries_logits=self.trained[1]
        )
        sizes = [self.setting.output] * len(self.batch)
        results = [
            self.processor.post_process_panoptic_segmentation(
                outputs,
                threshold=self.settings.object_mask_threshold,
                overlap_mask_area_threshold=self.settings.overlap_threshold,
                label_ids_to_fuse=self.stuff,
                target_sizes=sizes,
            ),
            self.processor.post_process_instance_segmentation(
                outputs, threshold=0.0, target_sizes=sizes, return_binary_maps=True
            ),
        ]
        if self.settings.semantic:
            results.append(
                self.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
            )
        return results


KINDS = {OURS: Ours, REFERENCE: Reference, TRANSFORMERS: Transformers}


def make(kind: str, setting: Setting, network: nn.Module | None = None) -> Ours:
    """One implementation; ``network`` (by default a fresh one, always the same) is copied."""
    cfg = setting.config()
    return KINDS[kind](network if network is not None else build_network(cfg), cfg, setting)
