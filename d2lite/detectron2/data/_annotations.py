"""Annotations of a record -> transformed annotations -> Instances.

``detectron2.data.detection_utils`` exports these.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from fvcore.transforms.transform import HFlipTransform, Transform, TransformList

from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    RotatedBoxes,
    polygons_to_bitmask,
)


def _as_list(transforms: Any) -> TransformList:
    return TransformList(list(transforms)) if isinstance(transforms, (tuple, list)) else transforms


def transform_instance_annotations(
    annotation: dict,
    transforms: Transform | Sequence[Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: np.ndarray | None = None,
) -> dict:
    """Apply the image's transforms to one annotation.

    Args:
        annotation: of a record; changed in place.
        transforms: what was done to the image.
        image_size: (h, w) of the transformed image, to which the box is clipped.
        keypoint_hflip_indices: see ``create_keypoint_hflip_indices``.

    Returns:
        the same dict: ``bbox`` XYXY_ABS float array [4]; ``segmentation`` a list of flat
        polygons (float64) or, from RLE, an array [h, w]; ``keypoints`` [K, 3].

    Raises:
        ValueError: segmentation is neither polygons nor RLE.
        AssertionError: a decoded mask has not the size of the image.
    """
    transforms = _as_list(transforms)
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    # Transforms move coordinates in place: integers would be cut off when resizing.
    box = transforms.apply_box(np.array([box], dtype=np.float64))[0].clip(min=0)
    h, w = image_size
    annotation["bbox"] = np.minimum(box, [w, h, w, h])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        annotation["segmentation"] = _transform_segmentation(
            annotation["segmentation"], transforms, image_size
        )
    if "keypoints" in annotation:
        annotation["keypoints"] = transform_keypoint_annotations(
            annotation["keypoints"], transforms, image_size, keypoint_hflip_indices
        )
    return annotation


def _transform_segmentation(
    segmentation: Any, transforms: Transform, image_size: tuple[int, int]
) -> list[np.ndarray] | np.ndarray:
    if isinstance(segmentation, list):
        # A fresh float copy, for the same reason.
        polygons = [np.array(p, dtype=np.float64).reshape(-1, 2) for p in segmentation]
        return [p.reshape(-1) for p in transforms.apply_polygons(polygons)]
    if isinstance(segmentation, dict):
        mask = transforms.apply_segmentation(mask_util.decode(segmentation))
        if tuple(mask.shape[:2]) != tuple(image_size):
            raise AssertionError(
                f"A transformed mask is {mask.shape[:2]} but its image {tuple(image_size)}: the "
                "RLE was made for another image size"
            )
        return mask
    raise ValueError(
        f"Cannot transform segmentation of type '{type(segmentation).__name__}'! Supported: "
        "polygons as list[list[float] or ndarray], COCO-style RLE as a dict."
    )


def transform_keypoint_annotations(
    keypoints: Sequence[float],
    transforms: Transform | Sequence[Transform],
    image_size: tuple[int, int],
    keypoint_hflip_indices: np.ndarray | None = None,
) -> np.ndarray:
    """Apply the image's transforms to one instance's keypoints.

    Args:
        keypoints: flat list of K times (x, y, visibility).
        transforms: what was done to the image.
        image_size: (h, w) of the transformed image; points outside become invisible.
        keypoint_hflip_indices: order of the keypoints after a horizontal flip.

    Returns:
        float64 [K, 3]; invisible ones are all zeros.

    Raises:
        ValueError: the number of keypoints differs from that of ``keypoint_hflip_indices``.
        AssertionError: the image was flipped an odd number of times, but no indices are given.
    """
    transforms = _as_list(transforms)
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)
    if keypoint_hflip_indices is not None and len(keypoint_hflip_indices) != len(points):
        raise ValueError(
            f"There are {len(points)} keypoints, but the metadata tell how to flip "
            f"{len(keypoint_hflip_indices)}"
        )
    xy = transforms.apply_coords(points[:, :2].copy())
    h, w = image_size
    inside = (xy >= 0).all(axis=1) & (xy <= (w, h)).all(axis=1)
    visibility = np.where(inside, points[:, 2], 0)
    result = np.concatenate([xy, visibility[:, None]], axis=1)

    parts = transforms.transforms if isinstance(transforms, TransformList) else [transforms]
    if sum(isinstance(t, HFlipTransform) for t in parts) % 2 == 1:
        if keypoint_hflip_indices is None:
            raise AssertionError("Flipping keypoints needs keypoint_hflip_indices")
        result = result[np.asarray(keypoint_hflip_indices, dtype=np.int64)]
    # COCO writes (0, 0, 0) for a keypoint that is not labelled.
    result[result[:, 2] == 0] = 0
    return result


def transform_proposals(
    dataset_dict: dict,
    image_shape: tuple[int, int],
    transforms: Transform,
    *,
    proposal_topk: int,
    min_box_size: float = 0,
) -> None:
    """Transform a record's precomputed proposals and put them in ``dataset_dict["proposals"]``.

    Args:
        dataset_dict: with ``proposal_boxes``, ``proposal_bbox_mode`` and
            ``proposal_objectness_logits``, which are taken out.
        image_shape: (h, w) of the transformed image.
        transforms: what was done to the image.
        proposal_topk: how many to keep.
        min_box_size: in pixels; sides must be longer.
    """
    if "proposal_boxes" not in dataset_dict:
        return
    boxes = BoxMode.convert(
        dataset_dict.pop("proposal_boxes"),
        dataset_dict.pop("proposal_bbox_mode"),
        BoxMode.XYXY_ABS,
    )
    boxes = Boxes(transforms.apply_box(boxes))
    logits = torch.as_tensor(
        dataset_dict.pop("proposal_objectness_logits").astype("float32", copy=True)
    )
    boxes.clip(image_shape)
    keep = boxes.nonempty(threshold=min_box_size)
    proposals = Instances(image_shape)
    proposals.proposal_boxes = boxes[keep][:proposal_topk]
    proposals.objectness_logits = logits[keep][:proposal_topk]
    dataset_dict["proposals"] = proposals


def annotations_to_instances(
    annos: list[dict], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Collect annotations as :func:`transform_instance_annotations` leaves them.

    Args:
        annos: of one image.
        image_size: (h, w).
        mask_format: "polygon" (PolygonMasks) or "bitmask" (BitMasks from polygons, RLE or arrays).

    Returns:
        Instances with ``gt_boxes``, ``gt_classes`` (int64) and, if the first annotation has them,
        ``gt_masks`` and ``gt_keypoints``.

    Raises:
        ValueError: a segmentation cannot be brought into ``mask_format``.
    """
    target = Instances(image_size)
    if annos:
        boxes = np.stack(
            [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
        )
    else:
        boxes = np.zeros((0, 4))
    target.gt_boxes = Boxes(boxes)
    target.gt_classes = torch.tensor([int(a["category_id"]) for a in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        segmentations = [a["segmentation"] for a in annos]
        if mask_format == "polygon":
            target.gt_masks = _polygon_masks(segmentations)
        elif mask_format == "bitmask":
            target.gt_masks = _bit_masks(segmentations, image_size)
        else:
            raise ValueError(f"mask_format must be 'polygon' or 'bitmask', not {mask_format!r}")
    if annos and "keypoints" in annos[0]:
        target.gt_keypoints = Keypoints([a.get("keypoints", []) for a in annos])
    return target


def _polygon_masks(segmentations: list) -> PolygonMasks:
    try:
        return PolygonMasks(segmentations)
    except ValueError as error:
        raise ValueError(
            "Failed to use mask_format=='polygon' from the given annotations! (RLE and array "
            "segmentations need INPUT.MASK_FORMAT 'bitmask'.)"
        ) from error


def _bit_masks(segmentations: list, image_size: tuple[int, int]) -> BitMasks:
    masks = [_bit_mask(segmentation, image_size) for segmentation in segmentations]
    return BitMasks(torch.stack([torch.from_numpy(np.ascontiguousarray(m)) for m in masks]))


def _bit_mask(segmentation: Any, image_size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation).astype(bool)
    if isinstance(segmentation, np.ndarray):
        if segmentation.ndim != 2:
            raise AssertionError(f"A mask must be [H, W], got {segmentation.ndim} dimensions")
        return segmentation.astype(bool)
    raise ValueError(
        f"Cannot convert segmentation of type '{type(segmentation).__name__}' to BitMasks! "
        "Supported: polygons as list[list[float] or ndarray], COCO-style RLE as a dict, a mask "
        "as an ndarray of ndim=2."
    )


def annotations_to_instances_rotated(annos: list[dict], image_size: tuple[int, int]) -> Instances:
    """As :func:`annotations_to_instances`, for boxes (cx, cy, w, h, degrees); no masks."""
    target = Instances(image_size)
    boxes = RotatedBoxes([a["bbox"] for a in annos])
    boxes.clip(image_size)
    target.gt_boxes = boxes
    target.gt_classes = torch.tensor([a["category_id"] for a in annos], dtype=torch.int64)
    return target


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Instances whose box and mask are not empty.

    Args:
        instances: with ``gt_boxes`` and possibly ``gt_masks``.
        by_box, by_mask: what to look at; at least one.
        box_threshold: sides must be longer, in pixels.
        return_mask: also return which were kept, bool [N].
    """
    if not by_box and not by_mask:
        raise AssertionError("filter_empty_instances needs by_box or by_mask")
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    kept = instances[keep]
    return (kept, keep) if return_mask else kept
