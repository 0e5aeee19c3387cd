"""Inference on images too large for memory: overlapping tiles, stitched."""

from .model import TiledModel, tiled

__all__ = ["TiledModel", "tiled"]
