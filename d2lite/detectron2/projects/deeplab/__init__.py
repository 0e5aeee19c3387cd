"""DeepLab: config keys, the polynomial learning-rate schedule and the dilated ResNet.

The DeepLab heads themselves are not carried.
"""

from detectron2._missing import missing_getattr
from detectron2.projects.deeplab.build_solver import build_lr_scheduler
from detectron2.projects.deeplab.config import add_deeplab_config
from detectron2.projects.deeplab.resnet import build_resnet_deeplab_backbone

__all__ = ["add_deeplab_config", "build_lr_scheduler", "build_resnet_deeplab_backbone"]

__getattr__ = missing_getattr(__name__)
