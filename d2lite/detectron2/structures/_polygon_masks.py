"""PolygonMasks: objects outlined by polygons, and their rasterisation."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch

from detectron2.structures.boxes import Boxes


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Area enclosed by a polygon with vertices (x, y): the shoelace formula."""
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterise the union of polygons by COCO's rule.

    Args:
        polygons: flat arrays x0, y0, x1, y1, ... in pixels.

    Returns:
        bool [height, width]; all False without polygons.
    """
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    rles = mask_util.frPyObjects(polygons, height, width)
    return mask_util.decode(mask_util.merge(rles)).astype(bool)


def rasterize_polygons_within_box(
    polygons: list[np.ndarray], box: np.ndarray, mask_size: int
) -> torch.Tensor:
    """The part of an object inside ``box`` (x0, y0, x1, y1), as bool [mask_size, mask_size]."""
    width, height = box[2] - box[0], box[3] - box[1]
    # Degenerate boxes (smaller than 0.1 pixel) must not blow the scale up.
    scale_x = mask_size / max(float(width), 0.1)
    scale_y = mask_size / max(float(height), 0.1)
    moved = []
    for polygon in polygons:
        polygon = np.array(polygon, dtype=np.float64)
        polygon[0::2] = (polygon[0::2] - box[0]) * scale_x
        polygon[1::2] = (polygon[1::2] - box[1]) * scale_y
        moved.append(polygon)
    return torch.from_numpy(polygons_to_bitmask(moved, mask_size, mask_size))


def _check_polygon(polygon: Any) -> np.ndarray:
    if isinstance(polygon, torch.Tensor):
        polygon = polygon.cpu().numpy()
    array = np.asarray(polygon, dtype=np.float64)
    if array.ndim != 1 or len(array) % 2 != 0 or len(array) < 6:
        raise ValueError(
            "A polygon is a flat list of at least 6 numbers x0, y0, x1, y1, ...; "
            f"got {array.size} numbers of shape {list(array.shape)}"
        )
    return array


class PolygonMasks:
    """N objects, each a list of polygons; a polygon is a float64 array x0, y0, x1, y1, ..."""

    def __init__(self, polygons: list[list[Sequence[float] | np.ndarray]]) -> None:
        """
        Args:
            polygons: per object, its polygons; absolute coordinates in pixels.

        Raises:
            ValueError: not a list of lists, or a polygon with an odd number or fewer than six
                numbers.
        """
        if not isinstance(polygons, list):
            raise ValueError(
                f"PolygonMasks needs a list (per object) of lists of polygons, not {type(polygons)}"
            )
        for per_object in polygons:
            if not isinstance(per_object, list):
                raise ValueError(
                    f"PolygonMasks needs a list of polygons per object, not {type(per_object)}"
                )
        self.polygons: list[list[np.ndarray]] = [
            [_check_polygon(polygon) for polygon in per_object] for per_object in polygons
        ]

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """Polygons stay on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes. As in detectron2 the maximum starts at 0: an object wholly at negative
        coordinates ends at 0, and one without polygons gives (inf, inf, 0, 0)."""
        boxes = torch.zeros(len(self.polygons), 4, dtype=torch.float32)
        boxes[:, :2] = float("inf")
        for box, per_object in zip(boxes, self.polygons):
            if not per_object:
                continue
            points = torch.from_numpy(np.concatenate(per_object)).view(-1, 2)
            box[:2] = points.min(dim=0).values
            box[2:] = points.max(dim=0).values.clamp(min=0)
        return Boxes(boxes)

    def nonempty(self) -> torch.Tensor:
        """bool [N]: the object has at least one polygon."""
        return torch.tensor([len(p) > 0 for p in self.polygons], dtype=torch.bool)

    def area(self) -> torch.Tensor:
        """float32 [N]: sum of the areas of an object's polygons (overlaps count twice)."""
        areas = [
            sum(polygon_area(p[0::2], p[1::2]) for p in per_object) for per_object in self.polygons
        ]
        return torch.tensor(areas, dtype=torch.float32)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Crop the i-th object by the i-th box [N, 4]: bool [N, mask_size, mask_size]."""
        if len(boxes) != len(self):
            raise AssertionError(f"{len(boxes)} boxes for {len(self)} objects")
        if len(self) == 0:
            return torch.empty(0, mask_size, mask_size, dtype=torch.bool, device=boxes.device)
        crops = [
            rasterize_polygons_within_box(polygons, box, mask_size)
            for polygons, box in zip(self.polygons, boxes.cpu().numpy())
        ]
        return torch.stack(crops).to(device=boxes.device)

    def __getitem__(self, item: int | slice | list[int] | torch.Tensor) -> PolygonMasks:
        """Select objects by int, slice, list of ints, or bool or integer tensor [N]."""
        if isinstance(item, int):
            selected = [self.polygons[item]]
        elif isinstance(item, slice):
            selected = self.polygons[item]
        else:
            if isinstance(item, torch.Tensor):
                if item.dim() != 1:
                    raise AssertionError("PolygonMasks take one-dimensional index tensors")
                if item.dtype == torch.bool:
                    item = item.nonzero().squeeze(1)
                elif item.is_floating_point():
                    raise ValueError(f"Unsupported tensor dtype={item.dtype} for indexing!")
                item = item.cpu().tolist()
            selected = [self.polygons[index] for index in item]
        result = copy.copy(self)
        result.polygons = selected
        return result

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    @staticmethod
    def cat(polymasks_list: list[PolygonMasks]) -> PolygonMasks:
        """Concatenate a non-empty list."""
        if not polymasks_list:
            raise AssertionError("PolygonMasks.cat needs a non-empty list")
        return type(polymasks_list[0])(
            list(itertools.chain.from_iterable(masks.polygons for masks in polymasks_list))
        )
