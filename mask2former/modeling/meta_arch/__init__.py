"""Heads; importing a module registers it in detectron2's SEM_SEG_HEADS_REGISTRY."""
