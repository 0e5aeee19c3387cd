"""Draws a model's predictions over the image they were made for."""

import numpy as np
import torch

from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from mask2former.data.drawable import for_drawing


def confident_instances(instances: Instances, threshold: float) -> Instances:
    """The instances with a score of at least ``threshold``, on the CPU, best first."""
    instances = instances.to("cpu")
    instances = instances[instances.scores >= threshold]
    return instances[instances.scores.argsort(descending=True)]


def drawable_instances(instances: Instances, metadata: Metadata, threshold: float) -> Instances:
    """The confident instances whose class is a thing of the dataset.

    A panoptic model asked for instances alone names stuff too; it has no thing class to show.
    """
    instances = confident_instances(instances, threshold)
    things = metadata.get("thing_dataset_id_to_contiguous_id")
    if things is None:
        return instances
    known = torch.tensor(sorted(things.values()), dtype=instances.pred_classes.dtype)
    return instances[torch.isin(instances.pred_classes, known)]


def draw_predictions(
    image: np.ndarray,
    predictions: dict,
    metadata: Metadata,
    *,
    confidence_threshold: float = 0.5,
    instance_mode: ColorMode = ColorMode.IMAGE,
    scale: float = 1.0,
):
    """Draws what the model said about one image.

    A panoptic result is drawn alone, since it holds everything; otherwise the semantic map and then
    the instances, on the same canvas.

    Args:
        image: uint8 ``[H, W, 3]``, BGR.
        predictions: the model's output for it: any of ``panoptic_seg``, ``sem_seg``, ``instances``.
        metadata: class names and colours.
        confidence_threshold: instances below this score are left out. Panoptic segments carry no
            score: for them ``MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD`` decides.
        instance_mode: detectron2's colour mode.
        scale: size of the drawing relative to the image.

    Returns:
        detectron2's ``VisImage``: ``get_image()`` gives RGB, ``save(path)`` writes a file.
    """
    metadata = for_drawing(metadata)
    visualizer = Visualizer(image[:, :, ::-1], metadata, scale=scale, instance_mode=instance_mode)
    if "panoptic_seg" in predictions:
        panoptic_seg, segments_info = predictions["panoptic_seg"]
        return visualizer.draw_panoptic_seg(panoptic_seg.to("cpu"), segments_info)
    output = visualizer.get_output()
    if "sem_seg" in predictions:
        output = visualizer.draw_sem_seg(predictions["sem_seg"].argmax(dim=0).to("cpu"))
    if "instances" in predictions:
        kept = drawable_instances(predictions["instances"], metadata, confidence_threshold)
        output = visualizer.draw_instance_predictions(kept)
    return output
