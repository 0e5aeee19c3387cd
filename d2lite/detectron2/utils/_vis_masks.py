"""Masks in whatever form they come, and the segments of a panoptic map."""

from collections.abc import Iterator

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from scipy import ndimage

__all__ = ["GenericMask", "Region", "_PanopticPrediction", "crop_to_content", "label_anchor"]


class Region:
    """The part of a mask that matters.

    Attributes:
        mask: ``[h, w]`` uint8 in {0, 1}, cropped to its content.
        x, y: of its top left pixel in the image.
    """

    def __init__(self, mask: np.ndarray, x: int = 0, y: int = 0) -> None:
        self.mask = np.ascontiguousarray(mask, dtype=np.uint8)
        self.x, self.y = x, y
        self.area = int(np.count_nonzero(self.mask))

    def contours(self) -> list[np.ndarray]:
        """Outlines, those of holes included: ``[N, 2]`` image coordinates (of pixel centres)."""
        found, _ = cv2.findContours(
            self.mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(self.x, self.y)
        )
        return [contour.reshape(-1, 2) + 0.5 for contour in found]


def crop_to_content(mask: np.ndarray) -> Region | None:
    """The smallest region with all of a ``[H, W]`` mask; None if the mask is empty."""
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    return Region(mask[y : y + h, x : x + w], x, y) if w and h else None


def label_anchor(region: Region) -> list[tuple[float, float]]:
    """Where to write about a region: a point well inside its largest part.

    The median of the part's pixels, where that lies inside (as in detectron2); otherwise, for
    rings and bows, the point that is farthest from the part's border. Very large further parts
    get a point of their own.
    """
    # A coarser grid will do for large regions, unless they are too thin to be seen on it.
    step = max(1, min(region.mask.shape) // 200)
    mask = np.ascontiguousarray(region.mask[step // 2 :: step, step // 2 :: step])
    if step > 1 and not mask.any():
        step, mask = 1, region.mask
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 1:
        return []
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = int(areas.argmax())
    chosen = [largest] + [i for i, a in enumerate(areas) if i != largest and a * step**2 > 120_000]
    points = []
    for index in chosen:
        x0, y0, w, h, area = stats[index + 1]
        part = labels[y0 : y0 + h, x0 : x0 + w] == index + 1
        # Medians from the histograms along the axes: no list of all pixels is needed.
        x = int(np.searchsorted(np.cumsum(part.sum(axis=0)), area / 2))
        y = int(np.searchsorted(np.cumsum(part.sum(axis=1)), area / 2))
        if not part[y, x]:
            padded = cv2.copyMakeBorder(part.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
            distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
            y, x = np.unravel_index(int(distance.argmax()), distance.shape)
        x, y = (int(x0 + x) * step + step // 2, int(y0 + y) * step + step // 2)
        points.append((region.x + x + 0.5, region.y + y + 0.5))
    return points


class GenericMask:
    """One mask, from polygons, an RLE or an array; each form is computed when it is needed.

    Args:
        mask_or_polygons: a list of flat ``[x0, y0, x1, y1, ...]`` polygons, a (compressed or
            uncompressed) COCO RLE, or an ``[H, W]`` array.
        height, width: of the image.

    Raises:
        AssertionError: the size of an array or RLE is another one.
        ValueError: none of these forms.
    """

    def __init__(self, mask_or_polygons, height: int, width: int) -> None:
        self._mask = self._polygons = self._has_holes = None
        self.height, self.width = height, width
        m = mask_or_polygons
        if isinstance(m, dict):
            if isinstance(m["counts"], list):
                m = mask_util.frPyObjects(m, *m["size"])
            m = mask_util.decode(m)[:, :]
        if isinstance(m, list):
            self._polygons = [np.asarray(polygon, dtype=float).reshape(-1) for polygon in m]
        elif isinstance(m, np.ndarray):
            if m.shape != (height, width):
                raise AssertionError(f"mask shape: {m.shape}, target dims: {height}, {width}")
            self._mask = m.astype(np.uint8)
        else:
            raise ValueError(f"GenericMask cannot handle {type(m).__name__}: {m!r}")

    @property
    def mask(self) -> np.ndarray:
        """``[H, W]`` uint8."""
        if self._mask is None:
            self._mask = self.polygons_to_mask(self._polygons)
        return self._mask

    @property
    def polygons(self) -> list[np.ndarray]:
        """Flat float polygons, holes included as polygons of their own."""
        if self._polygons is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self._mask)
        return self._polygons

    @property
    def has_holes(self) -> bool:
        """Whether the mask has holes; polygons that were given are taken to have none."""
        if self._has_holes is None:
            self._has_holes = self._mask is not None and self.mask_to_polygons(self._mask)[1]
        return self._has_holes

    @property
    def is_polygonal(self) -> bool:
        """Whether the mask is only known as polygons so far."""
        return self._mask is None

    def mask_to_polygons(self, mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """Outlines of a mask, and whether there are holes among them."""
        contours, hierarchy = cv2.findContours(
            np.ascontiguousarray(mask, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        if hierarchy is None:  # empty
            return [], False
        polygons = [c.reshape(-1).astype(float) + 0.5 for c in contours if len(c) >= 3]
        return polygons, bool((hierarchy.reshape(-1, 4)[:, 3] >= 0).any())

    def polygons_to_mask(self, polygons: list[np.ndarray]) -> np.ndarray:
        """``[H, W]`` uint8 of the union, by COCO's rule."""
        if not polygons:
            return np.zeros((self.height, self.width), np.uint8)
        rles = mask_util.frPyObjects([p.tolist() for p in polygons], self.height, self.width)
        return mask_util.decode(mask_util.merge(rles))[:, :]

    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    def bbox(self) -> np.ndarray:
        """XYXY, the far edge exclusive; zeros for an empty mask."""
        x, y, w, h = cv2.boundingRect(np.ascontiguousarray(self.mask))
        return np.array([x, y, x + w, y + h], dtype=float)


class _PanopticPrediction:
    """The segments of a panoptic map, largest first.

    Args:
        panoptic_seg: ``[H, W]`` of segment ids, or ``category * label_divisor + instance`` (-1 is
            void) when ``segments_info`` is None.
        segments_info: dicts with ``id``, ``category_id``, ``isthing``.
        metadata: needed when ``segments_info`` is None.
    """

    def __init__(self, panoptic_seg, segments_info: list[dict] | None, metadata=None) -> None:
        if isinstance(panoptic_seg, torch.Tensor):
            panoptic_seg = panoptic_seg.cpu().numpy()
        seg = np.asarray(panoptic_seg)
        if segments_info is None:
            things = set(metadata.thing_dataset_id_to_contiguous_id.values())
            segments_info = []
            for label in np.unique(seg).tolist():
                if label != -1:
                    category = label // metadata.label_divisor
                    segments_info.append(
                        {"id": label, "category_id": category, "isthing": category in things}
                    )
        self._seg = seg
        self._sinfo = {s["id"]: s for s in segments_info}

        # Compact labels 1..n let one pass find all bounding boxes.
        ids = seg
        self._ids = list(range(1, int(seg.max(initial=0)) + 1))
        if seg.min(initial=0) < 0 or seg.max(initial=0) > 4096:
            unique, inverse = np.unique(seg, return_inverse=True)
            ids = inverse.reshape(seg.shape) + 1
            self._ids = unique.tolist()
        boxes = ndimage.find_objects(ids.astype(np.int32))
        regions = {
            sid: Region(seg[box] == sid, box[1].start, box[0].start)
            for sid, box in zip(self._ids, boxes)
            if box is not None and sid in self._sinfo
        }
        self.regions = dict(sorted(regions.items(), key=lambda item: -item[1].area))

    def non_empty_mask(self) -> np.ndarray:
        """``[H, W]`` bool: pixels that belong to a segment."""
        return np.isin(self._seg, list(self._sinfo))

    def _select(self, things: bool) -> Iterator[tuple[Region, dict]]:
        for sid, region in self.regions.items():
            if bool(self._sinfo[sid]["isthing"]) == things:
                yield region, self._sinfo[sid]

    def semantic_regions(self) -> Iterator[tuple[Region, dict]]:
        """(region, info) of the stuff segments."""
        return self._select(things=False)

    def instance_regions(self) -> Iterator[tuple[Region, dict]]:
        """(region, info) of the things."""
        return self._select(things=True)

    def semantic_masks(self) -> Iterator[tuple[np.ndarray, dict]]:
        """(``[H, W]`` bool, info) of the stuff segments."""
        for _, info in self.semantic_regions():
            yield self._seg == info["id"], info

    def instance_masks(self) -> Iterator[tuple[np.ndarray, dict]]:
        """(``[H, W]`` bool, info) of the things."""
        for _, info in self.instance_regions():
            yield self._seg == info["id"], info
