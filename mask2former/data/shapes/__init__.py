"""The synthetic set "shapes": small pictures with exact panoptic ground truth, made in seconds.

A picture is layered the way a photograph is: stuff (`textures`), things (`outlines`, `objects`)
that occlude each other (`scene`), then light and noise (`lighting`). `writing` stores it in COCO's
panoptic + instances + semantic layout, so it travels the same code path as COCO.
"""

from .scene import Scene, SceneSpec, Segment, make_scene
from .writing import ShapesSpec, prepare_shapes

__all__ = ["Scene", "SceneSpec", "Segment", "ShapesSpec", "make_scene", "prepare_shapes"]
