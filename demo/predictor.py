"""The demo's model and drawing behind the class that user scripts import from the originals."""

from collections import deque
from collections.abc import Iterator

import cv2
import numpy as np
import torch

from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode
from mask2former.data.drawable import for_drawing
from mask2former.inference import AsyncPredictor, Predictor, draw_predictions
from mask2former.inference.drawing import drawable_instances
from mask2former.inference.tracking import ColorTracks


class VisualizationDemo:
    """Predicts on images, batches of images and video, and draws the result.

    Args:
        cfg: a complete config, see ``mask2former.inference.Predictor``.
        instance_mode: detectron2's colour mode.
        parallel: run one model per GPU in processes of their own, for video; the order is kept.
        confidence_threshold: instances below this score are not drawn.
    """

    def __init__(
        self,
        cfg: CfgNode,
        instance_mode: ColorMode = ColorMode.IMAGE,
        parallel: bool = False,
        confidence_threshold: float = 0.5,
    ):
        self.predictor = AsyncPredictor(cfg) if parallel else Predictor(cfg)
        self.metadata = self.predictor.metadata
        self.instance_mode = instance_mode
        self.confidence_threshold = confidence_threshold

    def run_on_image(self, image: np.ndarray):
        """``(predictions, VisImage)`` of one uint8 BGR image ``[H, W, 3]``."""
        predictions = self.predictor(image)
        return predictions, self.draw(image, predictions)

    def run_on_batch(self, images: list[np.ndarray]) -> list[tuple]:
        """What `run_on_image` gives, of several images; those of one size share a batch."""
        outputs = self.predictor.stream(images, batch_size=len(images))
        return [(output, self.draw(image, output)) for image, output in zip(images, outputs)]

    def draw(self, image: np.ndarray, predictions: dict):
        """A ``VisImage`` of predictions over their BGR image."""
        return draw_predictions(
            image,
            predictions,
            self.metadata,
            confidence_threshold=self.confidence_threshold,
            instance_mode=self.instance_mode,
        )

    def run_on_video(self, video: cv2.VideoCapture, batch_size: int = 1) -> Iterator[np.ndarray]:
        """Yields the frames of a video with predictions drawn, BGR; colours last over frames."""
        drawer = VideoVisualizer(for_drawing(self.metadata), self.instance_mode)
        tracks = ColorTracks()
        frames: deque[np.ndarray] = deque()  # read but not yet drawn

        def reading() -> Iterator[np.ndarray]:
            for frame in _frames(video):
                frames.append(frame)
                yield frame

        for predictions in self.predictor.stream(reading(), batch_size=batch_size):
            yield self._draw_frame(drawer, tracks, frames.popleft(), predictions)

    def _draw_frame(
        self, drawer: VideoVisualizer, tracks: ColorTracks, frame: np.ndarray, predictions: dict
    ) -> np.ndarray:
        rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if "panoptic_seg" in predictions:
            panoptic_seg, segments_info = predictions["panoptic_seg"]
            panoptic_seg = panoptic_seg.cpu()
            stuff = [s for s in segments_info if not s["isthing"]]
            things = [s for s in segments_info if s["isthing"]]
            drawn = drawer.draw_panoptic_seg_predictions(rgb, panoptic_seg, stuff)
            instances = Instances(tuple(panoptic_seg.shape))
            ids = torch.tensor([s["id"] for s in things], dtype=panoptic_seg.dtype)
            instances.pred_masks = panoptic_seg[None] == ids[:, None, None]
            instances.pred_classes = torch.tensor([s["category_id"] for s in things])
            if self._color(instances, tracks):
                drawn = drawer.draw_instance_predictions(drawn.get_image(), instances)
        elif "instances" in predictions:
            kept = drawable_instances(
                predictions["instances"], self.metadata, self.confidence_threshold
            )
            self._color(kept, tracks)
            drawn = drawer.draw_instance_predictions(rgb, kept)
        else:
            drawn = drawer.draw_sem_seg(rgb, predictions["sem_seg"].argmax(dim=0).cpu())
        return cv2.cvtColor(drawn.get_image(), cv2.COLOR_RGB2BGR)

    def _color(self, instances: Instances, tracks: ColorTracks) -> bool:
        """Sets the field ``COLOR``, which the visualizer takes; False where there is no object."""
        masks = np.asarray(instances.pred_masks) > 0.5
        colors = tracks.assign(instances.pred_classes.tolist(), masks)
        if len(instances) and self.instance_mode != ColorMode.SEGMENTATION:
            instances.COLOR = colors  # in SEGMENTATION mode, classes have colours, not objects
        return len(instances) > 0


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while video.isOpened():
        success, frame = video.read()
        if not success:
            return
        yield frame
