"""The classes that user scripts import from the safety-barrier fork's ``predict`` folder."""

import sys
from pathlib import Path

import numpy as np

_REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_REPO))

from demo.predictor import AsyncPredictor, VisualizationDemo  # noqa: E402, F401
from detectron2.config import CfgNode  # noqa: E402
from mask2former.inference import Predictor  # noqa: E402


class BatchPredictor:
    """``BatchPredictor(cfg)([image, ...])`` gives the model's outputs, one dict an image.

    Args:
        cfg: a complete config, see ``mask2former.inference.Predictor``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.predictor = Predictor(cfg)
        self.cfg, self.metadata, self.model = cfg, self.predictor.metadata, self.predictor.model

    def __call__(self, images: list[np.ndarray]) -> list[dict]:
        """Predicts on uint8 BGR images [H, W, 3] of any sizes in one batch."""
        return self.predictor(images)
