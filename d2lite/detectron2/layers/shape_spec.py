"""ShapeSpec: what is known about a feature map's shape before it exists."""

from dataclasses import dataclass

from detectron2._missing import missing_getattr

__all__ = ["ShapeSpec"]


@dataclass
class ShapeSpec:
    """Channels, height and width in pixels, and stride to the input image; None where unknown."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


__getattr__ = missing_getattr(__name__)
