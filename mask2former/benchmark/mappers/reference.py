"""The mappers once more, plainly: every step as the published code takes it, on detectron2's API.

Nothing here is fast. Images are resized whole and cropped afterwards, semantic maps travel as
float64, ids as RGB and int64, and each mask is made by itself. A reference takes the mapper it is
compared with, for its augmentations and settings, and draws the same random numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances
from mask2former.data.dataset_mappers.lazy_augmentation import PixelInput

Record = dict[str, Any]


def semantic(mapper: Any, record: Record) -> Record:
    """MaskFormerSemanticDatasetMapper."""
    record = dict(record)
    image = utils.read_image(record["file_name"], format=mapper.img_format)
    labels = utils.read_image(record.pop("sem_seg_file_name")).astype("double")
    aug_input = T.AugInput(image, sem_seg=labels)
    aug_input, _ = T.apply_transform_gens(mapper.tfm_gens, aug_input)
    image = _padded(_tensor(aug_input.image), mapper.size_divisibility, 128)
    sem_seg = torch.as_tensor(aug_input.sem_seg.astype("long"))
    sem_seg = _padded(sem_seg, mapper.size_divisibility, mapper.ignore_label)
    classes = [c for c in np.unique(sem_seg.numpy()) if c != mapper.ignore_label]
    masks = [sem_seg.numpy() == c for c in classes]
    record |= {"image": image, "sem_seg": sem_seg, "instances": _instances(image, classes, masks)}
    return record


def panoptic(mapper: Any, record: Record, **hints: Any) -> Record:
    """MaskFormerPanopticDatasetMapper; ``hints`` are the box and the ratio of crop sampling."""
    record = dict(record)
    image = utils.read_image(record["file_name"], format=mapper.img_format)
    labels = None
    if "sem_seg_file_name" in record:
        labels = utils.read_image(record.pop("sem_seg_file_name")).astype("double")
    ids = utils.read_image(record.pop("pan_seg_file_name"), "RGB")
    aug_input = PixelInput(image, sem_seg=labels, **hints)
    aug_input, transforms = T.apply_transform_gens(mapper.tfm_gens, aug_input)
    ids = _decoded(transforms.apply_segmentation(ids))
    side = mapper.size_divisibility
    record["image"] = _padded(_tensor(aug_input.image), side, 128)
    if labels is not None:
        sem_seg = torch.as_tensor(aug_input.sem_seg.astype("long"))
        record["sem_seg"] = _padded(sem_seg, side, mapper.ignore_label)
    ids = _padded(torch.as_tensor(ids), side, 0).numpy()
    kept = [(s["category_id"], ids == s["id"]) for s in record["segments_info"] if not _crowd(s)]
    if mapper.drop_vanished:
        kept = [(category, mask) for category, mask in kept if mask.sum() > 1]
    record["instances"] = _instances(record["image"], [c for c, _ in kept], [m for _, m in kept])
    return record


def crop_sampling(mapper: Any, record: Record) -> Record:
    """MaskFormerPanopticDatasetMapperCropSampling; the draws of what to show are the mapper's."""

    class Plain(type(mapper)):
        def _map(self, sample: Record, **hints: Any) -> Record:
            return panoptic(self, sample, **hints)

    plain = object.__new__(Plain)
    plain.__dict__ = mapper.__dict__
    return plain(record)


def instance(mapper: Any, record: Record) -> Record:
    """MaskFormerInstanceDatasetMapper."""
    record = dict(record)
    image, transforms = _augmented(mapper, record)
    shape = image.shape[:2]
    masks, classes = [], []
    for annotation in record.pop("annotations"):
        if not _crowd(annotation):
            moved = utils.transform_instance_annotations(dict(annotation), transforms, shape)
            masks.append(_rasterised(moved["segmentation"], shape))
            classes.append(moved["category_id"])
    side = mapper.size_divisibility
    record["image"] = _padded(_tensor(image), side, 128)
    masks = [_padded(torch.from_numpy(m), side, 0).numpy() for m in masks]
    record["instances"] = _instances(record["image"], classes, masks)
    return record


def instance_jitter(mapper: Any, record: Record) -> Record:
    """COCOInstanceNewBaselineDatasetMapper, for polygons."""
    record = dict(record)
    image, transforms = _augmented(mapper, record)
    shape = image.shape[:2]
    ones = transforms.apply_segmentation(np.ones((record["height"], record["width"])))
    moved = [
        utils.transform_instance_annotations(dict(a), transforms, shape)
        for a in record.pop("annotations")
        if not _crowd(a)
    ]
    instances = utils.annotations_to_instances(moved, shape)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances = utils.filter_empty_instances(instances)
    masks = [_rasterised(polygons, shape) for polygons in instances.gt_masks.polygons]
    empty = np.zeros((0, *shape), np.uint8)
    instances.gt_masks = torch.from_numpy(np.stack(masks).astype(np.uint8) if masks else empty)
    padding = torch.from_numpy(~ones.astype(bool))
    record |= {"image": _tensor(image), "padding_mask": padding, "instances": instances}
    return record


def panoptic_jitter(mapper: Any, record: Record) -> Record:
    """COCOPanopticNewBaselineDatasetMapper."""
    record = dict(record)
    image, transforms = _augmented(mapper, record)
    ids = utils.read_image(record.pop("pan_seg_file_name"), "RGB")
    ids = _decoded(transforms.apply_segmentation(ids))
    segments = [s for s in record["segments_info"] if not _crowd(s)]
    record["image"] = _tensor(image)
    masks = [ids == s["id"] for s in segments]
    instances = _instances(record["image"], [s["category_id"] for s in segments], masks)
    boxes = BitMasks(instances.gt_masks).get_bounding_boxes() if masks else Boxes(torch.zeros(0, 4))
    instances.gt_boxes = boxes
    record["instances"] = instances
    return record


def safety_barrier(mapper: Any, record: Record) -> Record:
    """SafetyBarrierInstanceDatasetMapper."""
    record = dict(record)
    image, transforms = _augmented(mapper, record)
    shape = image.shape[:2]
    moved = [
        utils.transform_instance_annotations(dict(a), transforms, shape)
        for a in record.pop("annotations")
        if not _crowd(a)
    ]
    instances = utils.annotations_to_instances(moved, shape, mask_format="bitmask")
    instances.gt_masks = instances.gt_masks.tensor
    record |= {"image": _tensor(image), "instances": instances}
    return record


REFERENCES: dict[str, Callable[[Any, Record], Record]] = {
    "MaskFormerSemanticDatasetMapper": semantic,
    "MaskFormerPanopticDatasetMapper": panoptic,
    "MaskFormerInstanceDatasetMapper": instance,
    "COCOInstanceNewBaselineDatasetMapper": instance_jitter,
    "COCOPanopticNewBaselineDatasetMapper": panoptic_jitter,
    "MaskFormerPanopticDatasetMapperCropSampling": crop_sampling,
    "SafetyBarrierInstanceDatasetMapper": safety_barrier,
}


def _augmented(mapper: Any, record: Record) -> tuple[np.ndarray, T.TransformList]:
    image = utils.read_image(record["file_name"], format=mapper.img_format)
    utils.check_image_size(record, image)
    return T.apply_transform_gens(mapper.tfm_gens, image)


def _crowd(segment: Record) -> bool:
    return bool(segment.get("iscrowd", 0))


def _decoded(rgb: np.ndarray) -> np.ndarray:
    rgb = rgb.astype(np.int64)
    return rgb[..., 0] + 256 * rgb[..., 1] + 256 * 256 * rgb[..., 2]


def _rasterised(segmentation: Any, shape: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return utils.polygons_to_bitmask(segmentation, *shape)
    return segmentation.astype(bool)


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _padded(tensor: torch.Tensor, side: int, value: int) -> torch.Tensor:
    if side <= 0:
        return tensor
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, side - width, 0, side - height), value=value).contiguous()


def _instances(image: torch.Tensor, classes: list[int], masks: list[np.ndarray]) -> Instances:
    instances = Instances(tuple(image.shape[-2:]))
    instances.gt_classes = torch.tensor(np.array(classes, dtype=np.int64))
    if masks:
        instances.gt_masks = torch.stack([torch.from_numpy(np.ascontiguousarray(m)) for m in masks])
    else:
        instances.gt_masks = torch.zeros((0, *image.shape[-2:]))
    return instances
