"""PointRend (Kirillov et al., CVPR 2020): point sampling, and the colour jitter of SSD.

The PointRend heads themselves are not carried.
"""

from detectron2._missing import missing_getattr
from detectron2.projects.point_rend.color_augmentation import ColorAugSSDTransform

__all__ = ["ColorAugSSDTransform"]

__getattr__ = missing_getattr(__name__)
