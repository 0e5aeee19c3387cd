"""Draws predictions on the frames of a video, with colours that stay with an object."""

import numpy as np
import pycocotools.mask as mask_util

from detectron2._missing import missing_getattr
from detectron2.structures import Instances
from detectron2.utils.colormap import random_color, random_colors
from detectron2.utils.visualizer import (
    ColorMode,
    Visualizer,
    _create_text_labels,
    _PanopticPrediction,
)

__all__ = [
    "ColorMode",
    "Instances",
    "VideoVisualizer",
    "Visualizer",
    "random_color",
    "random_colors",
]

# How alike two detections of neighbouring frames must be to count as one object.
IOU_BOXES, IOU_MASKS = 0.6, 0.5
# Frames for which an object that is not seen is remembered.
LIFETIME = 8


class _Detected:
    """One object of a frame."""

    def __init__(self, label: int, bbox: np.ndarray | None, mask_rle: dict | None, color) -> None:
        self.label = label
        self.bbox = bbox
        self.mask_rle = mask_rle
        self.color = color
        self.ttl = LIFETIME


class VideoVisualizer:
    """Like Visualizer, frame by frame.

    Args:
        metadata: of the data set; ``max_num_instances`` colours (default 74, the whole palette)
            are given to the objects that are seen at a time.
        instance_mode: IMAGE: a colour per object, kept over frames; SEGMENTATION: per class.
            IMAGE_BW: like IMAGE, on grey.
    """

    def __init__(self, metadata, instance_mode: ColorMode = ColorMode.IMAGE) -> None:
        if instance_mode not in (ColorMode.IMAGE, ColorMode.IMAGE_BW, ColorMode.SEGMENTATION):
            raise AssertionError(f"Unknown instance mode {instance_mode}")
        self.metadata = metadata
        self._instance_mode = instance_mode
        self._max_num_instances = metadata.get("max_num_instances", 74)
        self._colors = random_colors(self._max_num_instances, rgb=True, maximum=1)
        self._free = list(range(self._max_num_instances))[::-1]
        self._old: list[_Detected] = []

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances):
        """Draws objects.

        Args:
            frame: ``[H, W, 3]`` RGB.
            predictions: as for Visualizer; ``COLOR`` (one per object) overrides the colours.

        Returns:
            VisImage.
        """
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        if len(predictions) == 0:
            if self._instance_mode == ColorMode.IMAGE_BW:
                visualizer.output.reset_image(visualizer._create_grayscale_image())
            return visualizer.output
        predictions = predictions.to("cpu")
        boxes = predictions.pred_boxes.tensor.numpy() if predictions.has("pred_boxes") else None
        if boxes is not None and not (boxes[:, 2:] > boxes[:, :2]).any():
            boxes = None  # a model without boxes reports zeros
        scores = predictions.scores if predictions.has("scores") else None
        classes = predictions.pred_classes.tolist() if predictions.has("pred_classes") else None
        masks = np.asarray(predictions.pred_masks) if predictions.has("pred_masks") else None

        if predictions.has("COLOR"):
            colors = predictions.COLOR
        elif self._instance_mode == ColorMode.SEGMENTATION and self.metadata.get("thing_colors"):
            thing_colors = self.metadata.thing_colors
            colors = [[x / 255 for x in thing_colors[c]] for c in classes]
        else:
            colors = self._track(classes or [0] * len(predictions), boxes, masks)
        alpha = 0.5
        if self._instance_mode == ColorMode.IMAGE_BW:
            covered = (masks > 0).any(axis=0) if masks is not None else None
            visualizer.output.reset_image(visualizer._create_grayscale_image(covered))
            alpha = 0.3
        return visualizer.overlay_instances(
            boxes=None if masks is not None else boxes,
            masks=masks,
            labels=_create_text_labels(classes, scores, self.metadata.get("thing_classes", None)),
            keypoints=predictions.pred_keypoints if predictions.has("pred_keypoints") else None,
            assigned_colors=colors,
            alpha=alpha,
        )

    def draw_sem_seg(self, frame: np.ndarray, sem_seg, area_threshold: int | None = None):
        """Draws an ``[H, W]`` label map; see Visualizer."""
        return Visualizer(frame, self.metadata).draw_sem_seg(sem_seg, area_threshold)

    def draw_panoptic_seg_predictions(
        self,
        frame: np.ndarray,
        panoptic_seg,
        segments_info: list[dict],
        area_threshold: int | None = None,
        alpha: float = 0.5,
    ):
        """Draws a panoptic map; stuff in the colours of the classes, things tracked."""
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        pred = _PanopticPrediction(panoptic_seg, segments_info, self.metadata)
        if self._instance_mode == ColorMode.IMAGE_BW:
            grey = visualizer._create_grayscale_image(pred.non_empty_mask())
            visualizer.output.reset_image(grey)
        stuff = [s for s in segments_info if not s["isthing"]]
        mode, visualizer._instance_mode = visualizer._instance_mode, ColorMode.IMAGE
        visualizer.draw_panoptic_seg(panoptic_seg, stuff, area_threshold, alpha)
        visualizer._instance_mode = mode

        things = list(pred.instance_masks())
        if not things:
            return visualizer.output
        masks = [mask for mask, _ in things]
        classes = [info["category_id"] for _, info in things]
        colors = self._track(classes, None, masks)
        return visualizer.overlay_instances(
            masks=[mask.astype(np.uint8) for mask in masks],
            labels=[self.metadata.thing_classes[c] for c in classes],
            assigned_colors=colors,
            alpha=alpha,
        )

    def _track(self, classes: list[int], boxes: np.ndarray | None, masks) -> list:
        """Colours for this frame's objects: those of the last frames' objects that they match."""
        rles = [None] * len(classes)
        if masks is not None:
            stack = np.asarray(masks).astype(np.uint8).transpose(0, 2, 1)
            rles = mask_util.encode(np.ascontiguousarray(stack).transpose(2, 1, 0))
            boxes = None  # masks tell objects apart better
        found = [
            _Detected(label, None if boxes is None else boxes[i], rle, None)
            for i, (label, rle) in enumerate(zip(classes, rles))
        ]
        if self._old and found:
            self._hand_over(found)
        for old in self._old:
            old.ttl -= 1
        kept = [old for old in self._old if old.ttl > 0]
        self._free += [old.color for old in self._old if old.ttl <= 0]
        for detected in found:
            if detected.color is None:
                # More objects than colours: share them.
                detected.color = self._free.pop() if self._free else len(kept) % len(self._colors)
        in_use = {d.color for d in found + kept}
        self._old = found + kept
        self._free = [c for c in dict.fromkeys(self._free) if c not in in_use]
        return [self._colors[d.color] for d in found]

    def _hand_over(self, found: list[_Detected]) -> None:
        """Gives the colours of old objects to the new ones that overlap most; removes the old."""
        if found[0].mask_rle is not None:
            old_regions = [d.mask_rle for d in self._old]
            new_regions, threshold = [d.mask_rle for d in found], IOU_MASKS
        else:
            old_regions = [_xywh(d.bbox) for d in self._old]
            new_regions, threshold = [_xywh(d.bbox) for d in found], IOU_BOXES
        if any(r is None for r in old_regions + new_regions):
            self._free += [d.color for d in self._old]
            self._old = []
            return
        ious = np.asarray(mask_util.iou(old_regions, new_regions, [0] * len(new_regions)))
        same = np.array([[o.label == n.label for n in found] for o in self._old])
        ious = np.where(same, ious, 0.0)
        taken = set()
        for row, column in zip(*np.unravel_index(np.argsort(-ious, axis=None), ious.shape)):
            if ious[row, column] <= threshold:
                break
            if row not in taken and found[column].color is None:
                found[column].color = self._old[row].color
                taken.add(row)
        self._old = [d for i, d in enumerate(self._old) if i not in taken]


def _xywh(box: np.ndarray | None) -> np.ndarray | None:
    """A box as pycocotools wants it."""
    if box is None:
        return None
    return np.concatenate([box[:2], box[2:] - box[:2]]).astype(float)


__getattr__ = missing_getattr(__name__)
