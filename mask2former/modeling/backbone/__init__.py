"""Backbones of this project; importing a module registers it in detectron2's BACKBONE_REGISTRY."""
