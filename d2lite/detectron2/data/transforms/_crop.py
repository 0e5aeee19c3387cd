"""Augmentations that crop."""

from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import (
    CropTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
)

from detectron2.data.transforms.augmentation import Augmentation
from detectron2.structures import Boxes, pairwise_iou


class FixedSizeCrop(Augmentation):
    """Crop to a size at a random place, and pad at the right and bottom where the image is smaller.

    One draw is shared by both axes.

    Args:
        crop_size: (h, w).
        pad: pad smaller images up to ``crop_size``.
        pad_value: of the image.
        seg_pad_value: of segmentations.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        transforms: list[Transform] = [self._get_crop(image)]
        if self.pad:
            transforms.append(self._get_pad(image))
        return TransformList(transforms)

    def _get_crop(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        crop_h, crop_w = self.crop_size
        room = np.maximum((h - crop_h, w - crop_w), 0)
        y0, x0 = np.round(room * np.random.uniform(0.0, 1.0)).astype(int).tolist()
        return CropTransform(x0, y0, crop_w, crop_h, w, h)

    def _get_pad(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        crop_h, crop_w = self.crop_size
        pad_h, pad_w = max(crop_h - h, 0), max(crop_w - w, 0)
        if pad_h == 0 and pad_w == 0:
            # np.pad would copy.
            return NoOpTransform()
        return PadTransform(
            0, 0, pad_w, pad_h, min(w, crop_w), min(h, crop_h), self.pad_value, self.seg_pad_value
        )


class RandomCrop(Augmentation):
    """Crop a rectangle at a random place.

    Args:
        crop_type: what ``crop_size`` means:
            "relative": (h, w) as shares of the image;
            "relative_range": shares drawn uniformly from [size, 1], per axis;
            "absolute": (h, w) in pixels, at most the image;
            "absolute_range": both sides drawn from the pixels [min, max], at most the image.
        crop_size: two numbers.

    Raises:
        ValueError: unknown ``crop_type``.
    """

    _TYPES = ("relative_range", "relative", "absolute", "absolute_range")

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        super().__init__()
        if crop_type not in self._TYPES:
            raise ValueError(f"crop_type must be one of {self._TYPES}, not {crop_type!r}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return self._crop_at_random(image.shape[:2])

    def _crop_at_random(self, image_size: tuple[int, int]) -> CropTransform:
        h, w = image_size
        crop_h, crop_w = self.get_crop_size(image_size)
        if crop_h > h or crop_w > w:
            raise AssertionError(f"{self} asks for {crop_h}x{crop_w} of an image of {h}x{w}")
        y0 = int(np.random.randint(h - crop_h + 1))
        x0 = int(np.random.randint(w - crop_w + 1))
        return CropTransform(x0, y0, crop_w, crop_h, w, h)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw the size of the crop.

        Args:
            image_size: (h, w) in pixels.

        Returns:
            (h, w) in pixels.
        """
        h, w = image_size
        if self.crop_type == "absolute":
            return min(self.crop_size[0], h), min(self.crop_size[1], w)
        if self.crop_type == "absolute_range":
            low, high = self.crop_size
            if low > high:
                raise AssertionError(f"absolute_range needs min <= max, got {self.crop_size}")
            crop_h = np.random.randint(min(h, low), min(h, high) + 1)
            crop_w = np.random.randint(min(w, low), min(w, high) + 1)
            return int(crop_h), int(crop_w)
        if self.crop_type == "relative":
            share_h, share_w = self.crop_size
        else:
            smallest = np.asarray(self.crop_size, dtype=np.float32)
            share_h, share_w = smallest + np.random.rand(2) * (1 - smallest)
        return int(h * share_h + 0.5), int(w * share_w + 0.5)


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """RandomCrop that avoids crops filled by one class (DeepLab's training, via detectron2).

    Up to ten crops are drawn until one shows more than one label and the largest label covers less
    than the given share; the last is taken anyway. Ignored pixels do not count.

    Args:
        crop_type, crop_size: as in :class:`RandomCrop`.
        single_category_max_area: largest share of one label; 1.0 or more: no constraint.
        ignored_category: label that does not count.
    """

    _TRIES = 10

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        super().__init__()
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> Transform:
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        if sem_seg is None:
            raise ValueError(
                "RandomCrop_CategoryAreaConstraint with single_category_max_area < 1 needs a "
                "semantic map (sem_seg_file_name in the records), or set "
                "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA to 1.0"
            )
        for _ in range(self._TRIES):
            crop = self.crop_aug._crop_at_random(sem_seg.shape)
            if self._is_mixed(crop.apply_image(sem_seg)):
                break
        return crop

    def _is_mixed(self, labels: np.ndarray) -> bool:
        values, counts = _count_labels(labels)
        if self.ignored_category is not None:
            counts = counts[values != self.ignored_category]
        return len(counts) > 1 and counts.max() < counts.sum() * self.single_category_max_area


def _count_labels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels in rising order, and how often each occurs."""
    small = labels
    if labels.dtype not in (np.uint8, np.uint16):
        # Mappers use float64. Labels that fit 16 bits (nearly all) can be counted in a table, which
        # is faster than sorting; what does not fit compares unequal.
        with np.errstate(invalid="ignore"):
            small = labels.astype(np.uint16)
        if not np.array_equal(small, labels):
            return np.unique(labels, return_counts=True)
    table = np.bincount(small.ravel())
    values = np.flatnonzero(table)
    return values, table[values]


class MinIoURandomCrop(Augmentation):
    """Crop so that all boxes overlap the crop by a drawn minimum (SSD, Liu et al., ECCV 2016).

    Args:
        min_ious: to choose from; "the whole image" and "any crop" are choices as well.
        min_crop_size: smallest side of the crop as a share of the image.
        mode_trials: how often a minimum is drawn at most.
        crop_trials: how often a crop is drawn for each.
    """

    def __init__(
        self,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        mode_trials: int = 1000,
        crop_trials: int = 50,
    ) -> None:
        super().__init__()
        self._init(locals())
        self.sample_mode = (1, *min_ious, 0)

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> Transform:
        """Draw a crop; boxes: float [N, 4], XYXY."""
        if boxes is None:
            return NoOpTransform()
        boxes = np.asarray(boxes).reshape(-1, 4)
        for _ in range(self.mode_trials):
            min_iou = np.random.choice(self.sample_mode)
            if min_iou == 1:
                return NoOpTransform()
            for _ in range(self.crop_trials):
                crop = self._draw(image.shape[0], image.shape[1])
                if crop is not None and self._fits(crop, boxes, min_iou):
                    return crop
        return NoOpTransform()

    def _draw(self, h: int, w: int) -> CropTransform | None:
        new_w = np.random.uniform(self.min_crop_size * w, w)
        new_h = np.random.uniform(self.min_crop_size * h, h)
        if not 0.5 <= new_h / new_w <= 2:
            return None
        left, top = np.random.uniform(0, w - new_w), np.random.uniform(0, h - new_h)
        if int(new_w) == 0 or int(new_h) == 0:
            return None
        return CropTransform(int(left), int(top), int(new_w), int(new_h), w, h)

    @staticmethod
    def _fits(crop: CropTransform, boxes: np.ndarray, min_iou: float) -> bool:
        if len(boxes) == 0:
            return True
        low = np.array([crop.x0, crop.y0])
        high = low + (crop.w, crop.h)
        overlaps = pairwise_iou(Boxes(np.concatenate([low, high])[None]), Boxes(boxes))
        if overlaps.min() < min_iou:
            return False
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        return bool(((centers > low) & (centers < high)).all(axis=1).any())
