"""All augmentations under their public address; they live in files by kind."""

from typing import Any

from fvcore.transforms.transform import (
    BlendTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from detectron2._missing import missing_getattr
from detectron2.data.transforms._color import (
    RandomBrightness,
    RandomContrast,
    RandomLighting,
    RandomSaturation,
)
from detectron2.data.transforms._crop import (
    FixedSizeCrop,
    MinIoURandomCrop,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
)
from detectron2.data.transforms._geometry import (
    RandomExtent,
    RandomFlip,
    RandomResize,
    RandomRotation,
    Resize,
    ResizeScale,
    ResizeShortestEdge,
)
from detectron2.data.transforms.augmentation import AugInput, Augmentation, as_augmentation
from detectron2.data.transforms.transform import (
    ExtentTransform,
    ResizeTransform,
    RotationTransform,
)

__all__ = [
    "Augmentation",
    "BlendTransform",
    "CropTransform",
    "ExtentTransform",
    "FixedSizeCrop",
    "HFlipTransform",
    "MinIoURandomCrop",
    "NoOpTransform",
    "PadTransform",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomExtent",
    "RandomFlip",
    "RandomLighting",
    "RandomResize",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
    "ResizeTransform",
    "RotationTransform",
    "Transform",
    "TransformList",
    "VFlipTransform",
]


class RandomApply(Augmentation):
    """Another augmentation, now and then.

    Args:
        tfm_or_aug: what to apply.
        prob: how often, in [0, 1].
    """

    def __init__(self, tfm_or_aug: Augmentation | Transform, prob: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= prob <= 1.0:
            raise AssertionError(f"Probability must be between 0.0 and 1.0 (given: {prob})")
        self.tfm_or_aug = tfm_or_aug
        self.prob = prob
        self.aug = as_augmentation(tfm_or_aug)

    def _drawn(self) -> bool:
        return bool(self._rand_range() < self.prob)

    def get_transform(self, *args: Any) -> Transform:
        return self.aug.get_transform(*args) if self._drawn() else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        return self.aug(aug_input) if self._drawn() else NoOpTransform()


__getattr__ = missing_getattr(__name__)
