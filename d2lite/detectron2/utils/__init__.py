"""Helpers without knowledge of models or data sets."""

from detectron2._missing import missing_getattr

__getattr__ = missing_getattr(__name__)
