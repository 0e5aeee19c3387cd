"""The registry of backbones and the function that builds one from a config."""

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

from .backbone import Backbone

__all__ = ["BACKBONE_REGISTRY", "build_backbone"]

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = """
Backbones by name. An entry is called as ``entry(cfg, input_shape: ShapeSpec)`` and returns a
:class:`Backbone`.
"""


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Builds ``cfg.MODEL.BACKBONE.NAME``.

    Args:
        input_shape: of the images; by default as many channels as ``MODEL.PIXEL_MEAN`` has values.

    Raises:
        KeyError: the name is not registered.
        AssertionError: the registered entry returned something that is not a Backbone.
    """
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    name = cfg.MODEL.BACKBONE.NAME
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape)
    if not isinstance(backbone, Backbone):
        raise AssertionError(
            f"MODEL.BACKBONE.NAME '{name}' built a {type(backbone).__name__}; "
            "a registered backbone must be a detectron2.modeling.Backbone"
        )
    return backbone


__getattr__ = missing_getattr(__name__)
