"""COCOeval under the name of detectron2's compiled version; the results are the same."""

import logging

from pycocotools.cocoeval import COCOeval

from detectron2._missing import missing_getattr

__all__ = ["COCOeval_opt", "logger"]

logger = logging.getLogger(__name__)

COCOeval_opt = COCOeval

__getattr__ = missing_getattr(__name__)
