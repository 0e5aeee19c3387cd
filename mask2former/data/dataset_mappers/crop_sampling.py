"""Augmentations and draws of crop sampling: bring one segment to a wanted size, crop around it.

Source: "Intra-Batch Supervision for Panoptic Segmentation on High-Resolution Images", de Geus and
Dubbelman, WACV 2023, section 3.3, and its published code, whose random draws are kept in number and
order.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager

_PREPARE = (
    "mask2former/data/datasets/prepare_cityscapes_sampling.py or prepare_mapillary_sampling.py "
    "writes it, for other sets datasets/prepare_crop_sampling.py"
)


class AdaptiveResize(T.ResizeShortestEdge):
    """Resizes by the ratio that the input asks for; without one, as ResizeShortestEdge.

    Args:
        shortest_side: (min, max) of the shorter side, which limit the ratio.
        overall_max: of the longer side, applied afterwards.
        short_edge_length, max_size, sample_style: of the ordinary resize.
    """

    def __init__(
        self,
        shortest_side: tuple[int, int],
        overall_max: int,
        short_edge_length: int | Sequence[int],
        max_size: int,
        sample_style: str,
    ) -> None:
        super().__init__(short_edge_length, max_size, sample_style)
        self.shortest_side = tuple(shortest_side)
        self.overall_max = overall_max

    def get_transform(self, image: np.ndarray, ratio: np.float32 | None) -> T.Transform:
        """Draws a size only where there is no ratio."""
        if ratio is None:
            return super().get_transform(image)
        height, width = image.shape[:2]
        low, high = (side / min(height, width) for side in self.shortest_side)
        ratio = min(max(ratio, low), high)
        new_h, new_w = height * ratio, width * ratio
        if max(new_h, new_w) > self.overall_max:
            scale = self.overall_max / max(new_h, new_w)
            new_h, new_w = new_h * scale, new_w * scale
        new_h, new_w = int(new_h + 0.5), int(new_w + 0.5)
        return T.ResizeTransform(height, width, new_h, new_w, self.interp)


class CropAroundBox(T.RandomCrop):
    """A random crop that contains the centre of one of the input's boxes, drawn evenly.

    Without boxes it lies anywhere. Arguments as of RandomCrop.
    """

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> T.Transform:
        """Draws the box, then the upper, then the left side of the crop.

        Args:
            boxes: XYXY [N, 4] in pixels of ``image``.
        """
        if boxes is None or not len(boxes):
            return super().get_transform(image)
        height, width = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((height, width))
        left, top, right, bottom = (float(v) for v in boxes[np.random.randint(len(boxes))])
        y0 = _draw_start((top + bottom) / 2, crop_h, height)
        x0 = _draw_start((left + right) / 2, crop_w, width)
        return T.CropTransform(x0, y0, crop_w, crop_h, width, height)


def _draw_start(centre: float, crop: int, length: int) -> int:
    """First row (or column) of a crop that contains ``centre``; half pixels are cut off."""
    low = max(centre - crop, 0)
    high = max(min(length - crop, centre - 1), low)
    return int(np.random.randint(int(low), int(high + 1)))


class SegmentIndex:
    """Which images have a category, and what segments an image has.

    Args:
        images_per_cat_json: file with ``imgs_per_cat``: dataset category id (as text) -> image ids.
        json_per_img_dir: folder of ``<image id>.json`` records.
        thing_ids, stuff_ids: dataset category id -> contiguous id.
        choose_crowd: whether a crowd segment may be drawn, as in the published code.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is broken.
    """

    def __init__(
        self,
        images_per_cat_json: str,
        json_per_img_dir: str,
        *,
        thing_ids: dict[int, int],
        stuff_ids: dict[int, int],
        choose_crowd: bool = False,
    ) -> None:
        if not PathManager.exists(images_per_cat_json):
            raise FileNotFoundError(
                f"{images_per_cat_json} (images_per_cat_json of the training set) does not exist; "
                + _PREPARE
            )
        images = _read(images_per_cat_json, "imgs_per_cat")["imgs_per_cat"]
        self._images = {int(k): v for k, v in images.items()}
        self._source = images_per_cat_json
        self._folder = json_per_img_dir.rstrip("/")
        self._thing_ids = thing_ids
        self._stuff_ids = stuff_ids
        self._choose_crowd = choose_crowd

    def draw_image(self, category: int) -> dict[str, Any]:
        """The record of an image that has ``category``, with contiguous category ids.

        Raises:
            ValueError: no image is known for it, or the image's file is missing or strange.
        """
        images = self._images.get(category)
        if not images:
            raise ValueError(f"{self._source} lists no image of category {category}; {_PREPARE}")
        path = f"{self._folder}/{images[np.random.randint(len(images))]}.json"
        if not PathManager.exists(path):
            raise ValueError(f"{path} does not exist, but {self._source} lists it; {_PREPARE}")
        record = _read(path, "segments_info")
        record["segments_info"] = [self._contiguous(s, path) for s in record["segments_info"]]
        return record

    def draw_segment(self, record: dict[str, Any], category: int) -> dict[str, Any]:
        """A segment of ``category`` out of a record of `draw_image`.

        A crowd segment is drawn again: it is no object to bring to a size. What is left is drawn as
        evenly as before, and where none was drawn the published draws are unchanged.

        Raises:
            ValueError: the image has none.
        """
        wanted = self._thing_ids.get(category, self._stuff_ids.get(category))
        found = [s for s in record["segments_info"] if s["category_id"] == wanted]
        if not any(self._may_be_drawn(s) for s in found):
            raise ValueError(
                f"{record.get('file_name')} has no segment of category {category} that is no "
                f"crowd, but {self._source} lists it; {_PREPARE}"
            )
        while True:
            segment = found[np.random.randint(len(found))]
            if self._may_be_drawn(segment):
                return segment

    def is_thing(self, category: int) -> bool:
        """Whether the dataset category is countable."""
        return category in self._thing_ids

    def _may_be_drawn(self, segment: dict[str, Any]) -> bool:
        return self._choose_crowd or not segment.get("iscrowd", 0)

    def _contiguous(self, segment: dict[str, Any], path: str) -> dict[str, Any]:
        category = segment["category_id"]
        is_thing = category in self._thing_ids
        ids = self._thing_ids if is_thing else self._stuff_ids
        if category not in ids:
            raise ValueError(
                f"{path}: category {category} is no class of the training set; {_PREPARE}"
            )
        return {**segment, "category_id": ids[category], "isthing": is_thing}


def _read(path: str, key: str) -> dict[str, Any]:
    """A file of the index, which has ``key``."""
    try:
        with PathManager.open(path) as f:
            content = json.load(f)
    except ValueError as error:
        raise ValueError(f"{path} is no readable JSON ({error}); {_PREPARE}") from error
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"{path} has no {key!r}, so it is no file of the index; {_PREPARE}")
    return content
