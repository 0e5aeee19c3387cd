"""Object masks: as bitmaps, as polygons, and as small maps inside boxes."""

from __future__ import annotations

from detectron2._missing import missing_getattr
from detectron2.structures._bit_masks import BitMasks, ROIMasks
from detectron2.structures._polygon_masks import (
    PolygonMasks,
    polygon_area,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)
from detectron2.structures.boxes import Boxes

__all__ = [
    "BitMasks",
    "Boxes",
    "PolygonMasks",
    "ROIMasks",
    "polygon_area",
    "polygons_to_bitmask",
    "rasterize_polygons_within_box",
]

__getattr__ = missing_getattr(__name__)
