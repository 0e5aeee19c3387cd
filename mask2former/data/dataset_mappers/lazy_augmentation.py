"""Draws all augmentations first, then touches each pixel once.

The published mappers resize a whole image and crop it afterwards, and send label maps through the
same chain as floating-point copies. The augmentations they use only need to know the size of what
they change, so here they run on a stand-in without pixels. With the whole chain known, the image is
resized only where the crop looks, and a label map is gathered straight from its file resolution.
The result is the same to the bit, and so is the order of random draws.

Lists with any other augmentation take the ordinary path through detectron2.
"""

from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch

from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from .crop_sampling import AdaptiveResize, CropAroundBox
from .separable import AxisIndices, render_image, shape_after

# Augmentations that look at the image's size only (or at labels and boxes, which are provided).
_SIZE_ONLY = (
    AdaptiveResize,
    CropAroundBox,
    T.FixedSizeCrop,
    T.RandomCrop,
    T.RandomCrop_CategoryAreaConstraint,
    T.RandomFlip,
    T.Resize,
    T.ResizeScale,
    T.ResizeShortestEdge,
)
_PLAIN_TRANSFORMS = (ColorAugSSDTransform, T.NoOpTransform, T.HFlipTransform, T.VFlipTransform)


class StandIn(T.AugInput):
    """Answers `image` with a weightless array of the current size and remembers transforms."""

    def __init__(
        self,
        shape: tuple[int, ...],
        labels: np.ndarray | None,
        *,
        boxes: np.ndarray | None = None,
        ratio: float | None = None,
    ) -> None:
        # Not calling the base: it would ask for pixels.
        self._shape = shape
        self._labels = labels
        self._indices = AxisIndices(*shape[:2], rule="torch")
        self.boxes = boxes
        self.ratio = ratio
        self.steps: list[T.Transform] = []

    @property
    def image(self) -> np.ndarray:
        return np.broadcast_to(np.uint8(0), self._shape)

    @property
    def sem_seg(self) -> np.ndarray | None:
        return None if self._labels is None else self._indices.gather(self._labels, fill=None)

    def transform(self, tfm: T.Transform) -> None:
        for step in flatten(tfm):
            self.steps.append(step)
            self._shape = shape_after(step, self._shape)
            self.boxes = moved_boxes(step, self.boxes)
            if self._labels is not None:
                self._indices.apply(step)


class PixelInput(T.AugInput):
    """An ordinary input with the hints that crop sampling gives."""

    def __init__(self, image: np.ndarray, *, ratio: float | None = None, **parts: Any) -> None:
        super().__init__(image, **parts)
        self.ratio = ratio

    def transform(self, tfm: T.Transform) -> None:
        boxes, self.boxes = self.boxes, None
        super().transform(tfm)
        for step in flatten(tfm):
            boxes = moved_boxes(step, boxes)
        self.boxes = boxes


def moved_boxes(step: T.Transform, boxes: np.ndarray | None) -> np.ndarray | None:
    """Boxes [N, 4] after a transform, in their dtype: integers are cut off, as published."""
    if boxes is None:
        return None
    return step.apply_box(boxes.astype(np.float64)).astype(boxes.dtype)


def flatten(tfm: T.Transform) -> list[T.Transform]:
    """The single transforms of a possibly nested list, in order."""
    if isinstance(tfm, T.TransformList):
        return [step for part in tfm.transforms for step in flatten(part)]
    return [tfm]


class Augmented:
    """An augmented image and the means to carry its ground truth along.

    Attributes:
        image: uint8 [H', W', C] ndarray.
        transforms: what was applied, as detectron2's TransformList.
    """

    def __init__(
        self, image: np.ndarray, transforms: T.TransformList, source_shape: tuple | None
    ) -> None:
        self.image = image
        self.transforms = transforms
        self._source = source_shape  # set where all transforms are separable

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the augmented image."""
        return self.image.shape[:2]

    @cached_property
    def _torch_rule(self) -> AxisIndices:
        return AxisIndices.along(self.transforms.transforms, *self._source, rule="torch")

    @cached_property
    def _pil_rule(self) -> AxisIndices:
        return AxisIndices.along(self.transforms.transforms, *self._source, rule="pil")

    def label_map(self, labels: np.ndarray) -> np.ndarray:
        """Carries a semantic map [H, W] along, in its dtype if it can be, else int64.

        Nearest neighbour by torch's rule, since the published mappers transform these as float64.
        """
        if self._source is None:
            return self.transforms.apply_segmentation(labels.astype(np.float64)).astype(np.int64)
        return self._torch_rule.gather(labels, fill=None)

    def segments(self, numbered: np.ndarray) -> np.ndarray:
        """Carries a map of segment numbers [H, W] along, in its dtype; 0 where padded.

        Nearest neighbour by Pillow's rule, since the published mappers transform uint8 RGB.
        """
        if self._source is not None:
            return self._pil_rule.gather(numbered, fill=0)
        parts = [(numbered.astype(np.int64) >> shift) & 255 for shift in (0, 8, 16)]
        rgb = self.transforms.apply_segmentation(np.stack(parts, -1).astype(np.uint8))
        outside = (rgb == 255).all(-1)  # detectron2 pads with 255; no number is that large
        moved = rgb.astype(np.int64) @ [1, 256, 65536]
        return np.where(outside, 0, moved).astype(numbered.dtype)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Carries a uint8 [H, W] instance mask along by Pillow's rule; padding is empty."""
        if self._source is not None:
            return self._pil_rule.gather(mask, fill=0)
        return self.transforms.apply_segmentation(mask)

    def image_tensor(self) -> torch.Tensor:
        """The image as contiguous uint8 [C, H', W']."""
        height, width, channels = self.image.shape
        planes = np.empty((channels, height, width), self.image.dtype)
        # OpenCV's split is several times as fast as a strided copy.
        cv2.split(np.ascontiguousarray(self.image), list(planes))
        return torch.from_numpy(planes)


def augment(
    augmentations: list,
    image: np.ndarray,
    sem_seg: np.ndarray | None = None,
    *,
    boxes: np.ndarray | None = None,
    ratio: float | None = None,
) -> Augmented:
    """Applies a list of augmentations as ``T.apply_transform_gens`` would.

    Args:
        augmentations: detectron2 augmentations or transforms.
        image: uint8 [H, W, C].
        sem_seg: label map [H, W] that augmentations may look at.
        boxes: XYXY [N, 4] in pixels that augmentations may look at.
        ratio: by which `AdaptiveResize` resizes.
    """
    if image.dtype == np.uint8 and image.ndim == 3 and all(map(_is_size_only, augmentations)):
        stand_in = StandIn(image.shape, sem_seg, boxes=boxes, ratio=ratio)
        T.AugmentationList(augmentations)(stand_in)
        transforms = T.TransformList(stand_in.steps)
        return Augmented(render_image(image, stand_in.steps), transforms, image.shape[:2])
    labels = None if sem_seg is None else sem_seg.astype(np.float64)
    plain = PixelInput(image, sem_seg=labels, boxes=boxes, ratio=ratio)
    aug_input, transforms = T.apply_transform_gens(augmentations, plain)
    return Augmented(aug_input.image, transforms, None)


def _is_size_only(augmentation: Any) -> bool:
    # Exact types: a subclass may look at pixels.
    return type(augmentation) in _SIZE_ONLY or type(augmentation) in _PLAIN_TRANSFORMS
