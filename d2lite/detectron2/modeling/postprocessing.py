"""From the network's resolution to the resolution that was asked for."""

import torch.nn.functional as F
from torch import Tensor

from detectron2._missing import missing_getattr
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Instances

__all__ = ["detector_postprocess", "sem_seg_postprocess"]


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Removes the padding of a score map and resizes it.

    Args:
        result: ``[C, H, W]`` logits or scores at the padded size of the network's input.
        img_size: (height, width) of the valid area, at the top left.

    Returns:
        ``[C, output_height, output_width]``, bilinear, not corner-aligned.
    """
    valid = result[:, : img_size[0], : img_size[1]][None]
    return F.interpolate(
        valid, size=(output_height, output_width), mode="bilinear", align_corners=False
    )[0]


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Maps detections from the network's input size to the output size.

    Args:
        results: with ``pred_boxes`` or ``proposal_boxes``; ``pred_masks`` (optional) are
            ``[N, 1, M, M]`` probabilities inside the boxes; ``pred_keypoints`` ``[N, K, 3]``.
        mask_threshold: probability from which a pixel belongs to the mask.

    Returns:
        a new object without the instances whose box is empty after clipping; ``pred_masks`` become
        ``[N, output_height, output_width]`` bool.

    Raises:
        AssertionError: there is no box field.
    """
    if not (results.has("pred_boxes") or results.has("proposal_boxes")):
        raise AssertionError("detector_postprocess needs pred_boxes or proposal_boxes")
    old_height, old_width = results.image_size
    scale_x, scale_y = output_width / old_width, output_height / old_height
    results = Instances((output_height, output_width), **results.get_fields())

    name = "pred_boxes" if results.has("pred_boxes") else "proposal_boxes"
    boxes = results.get(name).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip(results.image_size)
    results.set(name, boxes)
    results = results[boxes.nonempty()]

    if results.has("pred_masks"):
        results.pred_masks = paste_masks_in_image(
            results.pred_masks[:, 0], results.get(name), results.image_size, mask_threshold
        )
    if results.has("pred_keypoints"):
        keypoints = results.pred_keypoints.clone()
        keypoints[:, :, 0] *= scale_x
        keypoints[:, :, 1] *= scale_y
        results.pred_keypoints = keypoints
    return results


__getattr__ = missing_getattr(__name__)
