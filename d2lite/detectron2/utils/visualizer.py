"""Draws predictions and annotations on an image, fast and without a window.

The interface is detectron2's; the drawing is done with OpenCV and Pillow instead of matplotlib.
See ``_vis_image.py`` for the canvas and its coordinates.
"""

import logging
from enum import Enum, unique

import numpy as np
import torch

from detectron2._missing import missing_getattr
from detectron2.data import MetadataCatalog
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    RotatedBoxes,
)
from detectron2.utils.colormap import random_color
from detectron2.utils.file_io import PathManager

from ._vis_colors import to_rgb
from ._vis_image import VisImage
from ._vis_masks import GenericMask, _PanopticPrediction, crop_to_content
from ._vis_regions import Regions

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ColorMode",
    "GenericMask",
    "Keypoints",
    "MetadataCatalog",
    "PathManager",
    "PolygonMasks",
    "RotatedBoxes",
    "VisImage",
    "Visualizer",
    "logger",
    "random_color",
]

logger = logging.getLogger(__name__)

_OFF_WHITE = (1.0, 1.0, 240.0 / 255)


@unique
class ColorMode(Enum):
    """How instances are coloured.

    IMAGE: a random colour each. SEGMENTATION: that of their category (if the metadata has
    ``thing_colors``). IMAGE_BW: like IMAGE, on a picture that is grey where nothing was predicted.
    """

    IMAGE = 0
    SEGMENTATION = 1
    IMAGE_BW = 2


def _create_text_labels(
    classes: list[int] | None,
    scores,
    class_names: list[str] | None,
    is_crowd: list | None = None,
) -> list[str] | None:
    """``["person 97%", ...]``; parts that are not given are left out, None if all are missing."""
    labels = None
    if classes is not None:
        named = class_names is not None and len(class_names) > 0
        labels = [class_names[i] if named else str(i) for i in classes]
    if scores is not None:
        percent = [f"{float(s) * 100:.0f}%" for s in scores]
        labels = percent if labels is None else [f"{a} {b}" for a, b in zip(labels, percent)]
    if labels is not None and is_crowd is not None:
        labels = [a + ("|crowd" if crowd else "") for a, crowd in zip(labels, is_crowd)]
    return labels


class Visualizer(Regions):
    """Draws on a copy of an image.

    Args:
        img_rgb: ``[H, W, 3]`` RGB in [0, 255].
        metadata: names and colours of classes (``thing_classes``, ``stuff_colors``, ...).
        scale: of the output.
        instance_mode: see :class:`ColorMode`.
        font_size_scale: factor on the font size.

    Attributes:
        output: the :class:`VisImage`; every ``draw_`` method changes and returns it.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata=None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ) -> None:
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = MetadataCatalog.get("__nonexist__") if metadata is None else metadata
        self.output = VisImage(self.img, scale=scale)
        self.cpu_device = torch.device("cpu")
        height, width = self.output.height, self.output.width
        # In points: readable at the output's size, growing with the image.
        self._default_font_size = max(np.sqrt(height * width) // 90, 10 // scale) * font_size_scale
        self._instance_mode = instance_mode
        self.keypoint_threshold = 0.05
        # Own and fixed: equal predictions give equal pictures, and training's random numbers
        # are not disturbed.
        self._rng = np.random.default_rng(0)

    # --- predictions ----------------------------------------------------------------------------

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draws the output of an instance segmentation model.

        Args:
            predictions: any of ``pred_boxes``, ``pred_classes``, ``scores``, ``pred_masks``
                (``[N, H, W]``), ``pred_keypoints``, on any device.
            jittering: in SEGMENTATION mode, vary the colour among objects of a class.
        """
        predictions = predictions.to(self.cpu_device)
        boxes = predictions.pred_boxes if predictions.has("pred_boxes") else None
        scores = predictions.scores if predictions.has("scores") else None
        classes = predictions.pred_classes.tolist() if predictions.has("pred_classes") else None
        labels = _create_text_labels(classes, scores, self.metadata.get("thing_classes", None))
        keypoints = predictions.pred_keypoints if predictions.has("pred_keypoints") else None
        masks = None
        if predictions.has("pred_masks"):
            masks = self._convert_masks(np.asarray(predictions.pred_masks))
            # A model without boxes reports zeros: nothing to draw, and no place for a label.
            if boxes is not None and not boxes.nonempty().any():
                boxes = None

        colors, alpha = None, 0.5
        thing_colors = self.metadata.get("thing_colors")
        if self._instance_mode == ColorMode.SEGMENTATION and thing_colors and classes is not None:
            plain = [to_rgb([x / 255 for x in thing_colors[c]]) for c in classes]
            colors = [self._jitter(c) for c in plain] if jittering else plain
            alpha = 0.8
        if self._instance_mode == ColorMode.IMAGE_BW:
            covered = None
            if predictions.has("pred_masks"):
                covered = (np.asarray(predictions.pred_masks) > 0).any(axis=0)
            self.output.reset_image(self._create_grayscale_image(covered))
            alpha = 0.3

        return self.overlay_instances(
            masks=masks,
            boxes=boxes,
            labels=labels,
            keypoints=keypoints,
            assigned_colors=colors,
            alpha=alpha,
        )

    def draw_sem_seg(
        self, sem_seg, area_threshold: int | None = None, alpha: float = 0.8
    ) -> VisImage:
        """Draws a label map.

        Args:
            sem_seg: ``[H, W]`` of ints; labels without a name in ``stuff_classes`` are left out.
            area_threshold: parts with fewer pixels are not drawn.
        """
        if isinstance(sem_seg, torch.Tensor):
            sem_seg = sem_seg.cpu().numpy()
        names = self.metadata.stuff_classes
        labels, areas = np.unique(sem_seg, return_counts=True)
        for label in labels[np.argsort(-areas)].tolist():
            if 0 <= label < len(names):
                self._draw_region(
                    crop_to_content(sem_seg == label),
                    self._class_color("stuff_colors", label),
                    edge_color=_OFF_WHITE,
                    text=names[label],
                    alpha=alpha,
                    area_threshold=area_threshold,
                )
        return self.output

    def draw_panoptic_seg(
        self,
        panoptic_seg,
        segments_info: list[dict] | None,
        area_threshold: int | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Draws a panoptic map: stuff first, then things, in colours that tell them apart.

        Args:
            panoptic_seg: ``[H, W]`` of segment ids; ids that ``segments_info`` lacks are left out.
            segments_info: dicts with ``id``, ``isthing``, contiguous ``category_id``, and
                optionally ``score`` and ``iscrowd``.
            area_threshold: stuff parts with fewer pixels are not drawn.
        """
        pred = _PanopticPrediction(panoptic_seg, segments_info, self.metadata)
        if self._instance_mode == ColorMode.IMAGE_BW:
            self.output.reset_image(self._create_grayscale_image(pred.non_empty_mask()))

        for region, info in pred.semantic_regions():
            category = info["category_id"]
            self._draw_region(
                region,
                self._class_color("stuff_colors", category),
                edge_color=_OFF_WHITE,
                text=self.metadata.stuff_classes[category],
                alpha=alpha,
                area_threshold=area_threshold,
            )

        things = list(pred.instance_regions())
        if not things:
            return self.output
        infos = [info for _, info in things]
        classes = [info["category_id"] for info in infos]
        scores = [info["score"] for info in infos] if all("score" in i for i in infos) else None
        crowds = [info.get("iscrowd", 0) for info in infos]
        labels = _create_text_labels(classes, scores, self.metadata.thing_classes, crowds)
        for (region, info), label in zip(things, labels):
            color = self._class_color("thing_colors", info["category_id"], jittered=True)
            self._draw_region(region, color, text=label, alpha=alpha)
        return self.output

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def draw_dataset_dict(self, dic: dict) -> VisImage:
        """Draws the annotations of a record in detectron2's format, whatever it has."""
        annotations = dic.get("annotations")
        if annotations:
            has = lambda key: key in annotations[0]  # noqa: E731
            masks = [a["segmentation"] for a in annotations] if has("segmentation") else None
            keypoints = None
            if has("keypoints"):
                keypoints = np.array([a["keypoints"] for a in annotations]).reshape(
                    len(annotations), -1, 3
                )
            boxes = None
            if has("bbox"):
                boxes = [
                    BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)
                    for a in annotations
                ]
            classes = [a["category_id"] for a in annotations]
            colors = None
            if self._instance_mode == ColorMode.SEGMENTATION and self.metadata.get("thing_colors"):
                colors = [self._class_color("thing_colors", c, jittered=True) for c in classes]
            labels = _create_text_labels(
                classes,
                None,
                self.metadata.get("thing_classes", None),
                [a.get("iscrowd", 0) for a in annotations],
            )
            self.overlay_instances(
                labels=labels,
                boxes=boxes,
                masks=masks,
                keypoints=keypoints,
                assigned_colors=colors,
            )

        sem_seg = dic.get("sem_seg")
        if sem_seg is None and "sem_seg_file_name" in dic:
            sem_seg = self._read(dic["sem_seg_file_name"])
        if sem_seg is not None:
            self.draw_sem_seg(sem_seg, area_threshold=0, alpha=0.5)

        pan_seg = dic.get("pan_seg")
        if pan_seg is None and "pan_seg_file_name" in dic:
            rgb = self._read(dic["pan_seg_file_name"]).astype(np.int64)
            pan_seg = rgb[..., 0] + 256 * rgb[..., 1] + 256 * 256 * rgb[..., 2]
        if pan_seg is not None:
            self.draw_panoptic_seg(pan_seg, dic["segments_info"], area_threshold=0, alpha=0.5)
        return self.output

    def overlay_instances(
        self,
        *,
        boxes=None,
        labels: list[str] | None = None,
        masks=None,
        keypoints=None,
        assigned_colors: list | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draws objects, large ones first; all lists have one entry per object.

        Args:
            boxes: Boxes or ``[N, 4]`` XYXY.
            masks: BitMasks, PolygonMasks, arrays ``[H, W]``, polygons, RLEs or GenericMasks.
            keypoints: Keypoints or ``[N, K, 3]`` (x, y, score).
            assigned_colors: default: random ones.
        """
        boxes = None if boxes is None else self._convert_boxes(boxes)
        masks = None if masks is None else self._convert_masks(masks)
        keypoints = None if keypoints is None else self._convert_keypoints(keypoints)
        counts = [len(x) for x in (boxes, masks, labels, keypoints) if x is not None]
        count = counts[0] if counts else 0
        if any(n != count for n in counts):
            raise AssertionError(f"Different numbers of boxes, masks, labels, keypoints: {counts}")
        if count == 0:
            return self.output
        if assigned_colors is None:
            assigned_colors = [self._random_color() for _ in range(count)]

        # GenericMasks without boxes of their own are found once, and reused for area and drawing.
        regions = [crop_to_content(m.mask) for m in masks] if masks is not None else [None] * count
        if boxes is not None:
            areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        else:
            areas = np.array([r.area if r is not None else 0 for r in regions])
        for i in np.argsort(-areas).tolist():
            color = to_rgb(assigned_colors[i])
            if boxes is not None:
                self.draw_box(boxes[i], edge_color=color)
            label = labels[i] if labels is not None else None
            if boxes is not None and label is not None:
                self._label_box(label, boxes[i], color)
                label = None
            if regions[i] is not None:
                self._draw_region(regions[i], color, text=label, alpha=alpha)
        if keypoints is not None:
            for points in keypoints:
                self.draw_and_connect_keypoints(points)
        return self.output

    def get_output(self) -> VisImage:
        """The canvas with everything drawn so far."""
        return self.output


__getattr__ = missing_getattr(__name__)
