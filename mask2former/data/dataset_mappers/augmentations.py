"""The published augmentation lists."""

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from .crop_sampling import AdaptiveResize, CropAroundBox


def resize_crop_flip(cfg: CfgNode, *, category_crop: bool, samples_crops: bool = False) -> list:
    """Shortest-edge resize, crop, SSD colour jitter, horizontal flip (MaskFormer's list).

    ``INPUT.RANDOM_FLIP`` is not consulted, as in the published code: the flip always has p = 0.5.

    Args:
        cfg: reads INPUT.{MIN_SIZE_TRAIN, MAX_SIZE_TRAIN, MIN_SIZE_TRAIN_SAMPLING, CROP,
            COLOR_AUG_SSD, FORMAT, NEW_SAMPLING*} and, for the category crop,
            MODEL.SEM_SEG_HEAD.IGNORE_VALUE.
        category_crop: retry crops in which one label fills more than
            INPUT.CROP.SINGLE_CATEGORY_MAX_AREA.
        samples_crops: whether inputs come with a ratio and a box, as INPUT.NEW_SAMPLING and
            INPUT.CROP.WITH_INSTANCE want them (crop sampling).

    Raises:
        ValueError: these keys are set and the mapper has no boxes to offer.
    """
    crop = cfg.INPUT.CROP
    if not samples_crops and (cfg.INPUT.NEW_SAMPLING or crop.WITH_INSTANCE):
        raise ValueError(
            "INPUT.NEW_SAMPLING and INPUT.CROP.WITH_INSTANCE work with INPUT.DATASET_MAPPER_NAME "
            f'mask_former_panoptic_cropsampling only; it is "{cfg.INPUT.DATASET_MAPPER_NAME}"'
        )
    augmentations: list = [_resize(cfg)]
    if crop.ENABLED and crop.WITH_INSTANCE:
        augmentations.append(CropAroundBox(crop.TYPE, crop.SIZE))
    elif crop.ENABLED and category_crop:
        augmentations.append(
            T.RandomCrop_CategoryAreaConstraint(
                crop.TYPE,
                crop.SIZE,
                crop.SINGLE_CATEGORY_MAX_AREA,
                cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            )
        )
    elif crop.ENABLED:
        augmentations.append(T.RandomCrop(crop.TYPE, crop.SIZE))
    if cfg.INPUT.COLOR_AUG_SSD:
        augmentations.append(ColorAugSSDTransform(img_format=cfg.INPUT.FORMAT))
    augmentations.append(T.RandomFlip())
    return augmentations


def _resize(cfg: CfgNode) -> T.Augmentation:
    size = cfg.INPUT
    ordinary = (size.MIN_SIZE_TRAIN, size.MAX_SIZE_TRAIN, size.MIN_SIZE_TRAIN_SAMPLING)
    if not size.NEW_SAMPLING:
        return T.ResizeShortestEdge(*ordinary)
    shortest = (size.NEW_SAMPLING_SHORTEST_SIDE_MIN, size.NEW_SAMPLING_SHORTEST_SIDE_MAX)
    return AdaptiveResize(shortest, size.NEW_SAMPLING_OVERALL_MAX_SIZE, *ordinary)


def large_scale_jitter(cfg: CfgNode, is_train: bool = True) -> list:
    """Flip, scale in [MIN_SCALE, MAX_SCALE], crop or pad to a square ("Simple Copy-Paste").

    Raises:
        AssertionError: not training; large-scale jitter has no test-time form.
    """
    if not is_train:
        raise AssertionError("large-scale jitter augments training images only (is_train=False)")
    flip = cfg.INPUT.RANDOM_FLIP
    side = cfg.INPUT.IMAGE_SIZE
    augmentations: list = []
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    augmentations.append(
        T.ResizeScale(
            cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE, target_height=side, target_width=side
        )
    )
    augmentations.append(T.FixedSizeCrop(crop_size=(side, side)))
    return augmentations
