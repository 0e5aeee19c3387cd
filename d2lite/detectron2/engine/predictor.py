"""The simplest way from an image to a prediction."""

import numpy as np
import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model

__all__ = ["DefaultPredictor"]


class DefaultPredictor:
    """Loads the model of a config and runs it on one image at a time.

    Resizes with INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST and converts to INPUT.FORMAT. For batches,
    speed or other preparation write a loop over the model instead.

    Attributes:
        metadata: of ``DATASETS.TEST[0]``, if there is one.

    Raises:
        AssertionError: INPUT.FORMAT is neither RGB nor BGR.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg.clone()  # the model may change it
        self.model = build_model(self.cfg)
        self.model.eval()
        if len(cfg.DATASETS.TEST):
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)

        short = cfg.INPUT.MIN_SIZE_TEST
        self.aug = T.ResizeShortestEdge([short, short], cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = cfg.INPUT.FORMAT
        if self.input_format not in ("RGB", "BGR"):
            raise AssertionError(f"INPUT.FORMAT must be RGB or BGR, got '{self.input_format}'")

    def __call__(self, original_image: np.ndarray) -> dict:
        """Predicts on one image.

        Args:
            original_image: ``[H, W, 3]`` uint8 in **BGR** order (as ``cv2.imread`` gives it).

        Returns:
            the model's outputs for the image, at the image's own size.
        """
        with torch.no_grad():
            image = original_image[:, :, ::-1] if self.input_format == "RGB" else original_image
            height, width = image.shape[:2]
            image = self.aug.get_transform(image).apply_image(image)
            tensor = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32))
            return self.model([{"image": tensor, "height": height, "width": width}])[0]
