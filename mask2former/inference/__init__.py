"""Using a trained model: predicting on images and drawing what was predicted."""

from .async_predictor import AsyncPredictor
from .drawing import draw_predictions
from .predictor import Predictor

__all__ = ["AsyncPredictor", "Predictor", "draw_predictions"]
