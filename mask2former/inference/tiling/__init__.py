"""Inference on images too large for memory: overlapping tiles, stitched."""

from .model import TiledModel, check_tiling, tiled

__all__ = ["TiledModel", "check_tiling", "tiled"]
