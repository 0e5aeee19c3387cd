"""Carries all polygons of an image through the augmentations at once.

A crop cuts polygons with shapely. Fvcore's transform does so one by one, which costs more in Python
than in geometry; here the same operations run over arrays of polygons. The result is the same to
the bit.
"""

from collections.abc import Iterable

import numpy as np
import shapely

from detectron2.data import transforms as T

Polygon = np.ndarray  # float64 [points, 2], x and y in pixels


def move_polygons(
    steps: Iterable[T.Transform], objects: list[list[Polygon]]
) -> list[list[Polygon]]:
    """Each object's polygons after a chain of transforms; a crop may split or remove some.

    Args:
        steps: single transforms, in order.
        objects: each a list of polygons with at least three points; they are not changed.
    """
    polygons = [p.copy() for parts in objects for p in parts]
    owners = np.repeat(np.arange(len(objects)), [len(parts) for parts in objects])
    for step in steps:
        if not polygons:
            break
        if type(step) is T.CropTransform:
            polygons, kept = _crop(step, polygons)
            owners = owners[kept]
        else:
            moved = [step.apply_polygons([p]) for p in polygons]
            owners = np.repeat(owners, [len(parts) for parts in moved])
            polygons = [p for parts in moved for p in parts]
    result: list[list[Polygon]] = [[] for _ in objects]
    for owner, polygon in zip(owners.tolist(), polygons):
        result[owner].append(polygon)
    return result


def _crop(step: T.CropTransform, polygons: list[Polygon]) -> tuple[list[Polygon], np.ndarray]:
    """The parts inside the crop's box, and the position of the polygon each part comes from.

    Holes are filled, and polygons that cannot be mended by an empty buffer are left out, as in
    fvcore.
    """
    corners = np.concatenate(polygons)
    rings = np.repeat(np.arange(len(polygons)), [len(p) for p in polygons])
    # The distance 0 mends self-intersections.
    shells = shapely.buffer(shapely.polygons(shapely.linearrings(corners, indices=rings)), 0.0)
    sources = np.flatnonzero(shapely.is_valid(shells))
    box = shapely.box(step.x0, step.y0, step.x0 + step.w, step.y0 + step.h)
    parts, which = shapely.get_parts(shapely.intersection(shells[sources], box), return_index=True)
    is_polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    good = np.flatnonzero(is_polygon & ~shapely.is_empty(parts) & shapely.is_valid(parts))
    corners, ring = shapely.get_coordinates(
        shapely.get_exterior_ring(parts[good]), return_index=True
    )
    ends = np.cumsum(np.bincount(ring, minlength=len(good)))
    cropped = np.split(corners, ends[:-1]) if len(good) else []
    # A ring ends where it began.
    return [step.apply_coords(c[:-1].copy()) for c in cropped], sources[which[good]]
