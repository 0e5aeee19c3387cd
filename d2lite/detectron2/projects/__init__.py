"""Pieces of detectron2's projects that Mask2Former builds on: DeepLab and PointRend."""

from detectron2._missing import missing_getattr

__getattr__ = missing_getattr(__name__)
