"""The resized and flipped copies of an image that test-time augmentation averages over."""

import copy

import numpy as np
import torch
from fvcore.transforms import HFlipTransform, NoOpTransform

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode, configurable
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import (
    RandomFlip,
    ResizeShortestEdge,
    ResizeTransform,
    apply_augmentations,
)

__all__ = [
    "DatasetMapperTTA",
    "HFlipTransform",
    "NoOpTransform",
    "RandomFlip",
    "ResizeShortestEdge",
    "ResizeTransform",
    "apply_augmentations",
    "configurable",
    "read_image",
]


class DatasetMapperTTA:
    """Makes the augmented copies of one input.

    Args:
        min_sizes: lengths of the shorter side, in pixels; one copy each.
        max_size: limit of the longer side.
        flip: add a horizontally mirrored copy directly after each resized one.
    """

    @configurable
    def __init__(self, min_sizes: list[int], max_size: int, flip: bool) -> None:
        self.min_sizes = min_sizes
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        aug = cfg.TEST.AUG
        return {"min_sizes": aug.MIN_SIZES, "max_size": aug.MAX_SIZE, "flip": aug.FLIP}

    def __call__(self, dataset_dict: dict) -> list[dict]:
        """Augments one input.

        Args:
            dataset_dict: ``image`` ``[C, H, W]`` uint8; ``height`` and ``width`` of the original.

        Returns:
            copies of the input, each with its own ``image`` and with ``transforms``: the
            TransformList that maps the original image to this copy.
        """
        image = dataset_dict["image"].permute(1, 2, 0).numpy()
        stored, original = image.shape[:2], (dataset_dict["height"], dataset_dict["width"])
        before = NoOpTransform() if stored == original else ResizeTransform(*original, *stored)

        outputs = []
        for size in self.min_sizes:
            resize = ResizeShortestEdge(size, self.max_size)
            variants = [[resize]]
            if self.flip:
                variants.append([resize, RandomFlip(prob=1.0)])
            for augmentations in variants:
                new_image, transforms = apply_augmentations(augmentations, np.copy(image))
                output = {k: copy.deepcopy(v) for k, v in dataset_dict.items() if k != "image"}
                chw = np.ascontiguousarray(new_image.transpose(2, 0, 1))
                output["image"] = torch.from_numpy(chw)
                output["transforms"] = before + transforms
                outputs.append(output)
        return outputs


__getattr__ = missing_getattr(__name__)
