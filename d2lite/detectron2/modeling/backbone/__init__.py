"""Image encoders: the interface, the registry, and ResNet."""

from detectron2._missing import missing_getattr

from .backbone import Backbone
from .build import BACKBONE_REGISTRY, build_backbone
from .resnet import (
    BasicStem,
    BottleneckBlock,
    ResNet,
    ResNetBlockBase,
    build_resnet_backbone,
    make_stage,
)

__all__ = [
    "BACKBONE_REGISTRY",
    "Backbone",
    "BasicStem",
    "BottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_backbone",
    "build_resnet_backbone",
    "make_stage",
]

__getattr__ = missing_getattr(__name__)
