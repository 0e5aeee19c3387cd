"""Using a trained model: predicting on images and drawing what was predicted."""

from .drawing import draw_predictions
from .predictor import Predictor

__all__ = ["Predictor", "draw_predictions"]
