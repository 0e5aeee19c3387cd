"""Puts the outputs of tiles together, one tile in memory at a time."""

from typing import Any

import numpy as np
import torch

from detectron2.structures import Boxes, Instances
from mask2former.modeling.postprocessing import LabelScores

from .joining import Part, join
from .plan import Box, Tile
from .results import BoxedMasks


class Stitcher:
    """Takes the outputs of an image's tiles and gives the output of the image.

    Every pixel is decided by the tile in whose own area it lies, so borders of tiles, where the
    network sees least, decide nothing. Objects that reach over several tiles are joined, see
    `joining.join`.
    """

    def __init__(self, tiles: list[Tile], size: tuple[int, int], agreement: float) -> None:
        """
        Args:
            tiles: of `plan_tiles`.
            size: height and width of the output.
            agreement: see `joining.join`.
        """
        self._tiles, self._size, self._agreement = tiles, size, agreement
        self._areas = [tile.write for tile in tiles]
        self._labels: torch.Tensor | None = None
        self._num_classes = 0
        self._segments: list[Part] | None = None
        self._instances: list[Part] | None = None

    def add(self, number: int, output: dict[str, Any]) -> None:
        """Takes the output of a tile, at the size of its ``write`` area."""
        tile = self._tiles[number]
        if "sem_seg" in output:
            self._add_semantic(tile, output["sem_seg"])
        if "panoptic_seg" in output:
            self._add_panoptic(number, tile, *output["panoptic_seg"])
        if "instances" in output:
            self._add_instances(number, tile, output["instances"])

    def finish(self, max_instances: int | None = None) -> dict[str, Any]:
        """The output of the image, on the CPU.

        Args:
            max_instances: the best that many are kept.
        """
        result: dict[str, Any] = {}
        if self._labels is not None:
            result["sem_seg"] = LabelScores(self._labels, self._num_classes)
        if self._segments is not None:
            result["panoptic_seg"] = self._joined_panoptic()
        if self._instances is not None:
            result["instances"] = self._joined_instances(max_instances)
        return result

    def _add_semantic(self, tile: Tile, scores: torch.Tensor) -> None:
        if self._labels is None:
            self._num_classes = scores.shape[0]
            self._labels = torch.zeros(self._size, dtype=torch.int16)
        labels = scores.argmax(dim=0).to(torch.int16).cpu()
        whole = Box(0, self._size[0], 0, self._size[1])
        self._labels[tile.own.inside(whole)] = labels[tile.own.inside(tile.write)]

    def _add_panoptic(
        self, number: int, tile: Tile, ids: torch.Tensor, segments: list[dict[str, Any]]
    ) -> None:
        self._segments = self._segments or []
        ids = ids.cpu().numpy()
        for segment in segments:
            part = Part.of(
                number,
                segment["category_id"],
                ids == segment["id"],
                tile.write,
                isthing=bool(segment["isthing"]),
            )
            if part is not None:
                self._segments.append(part)

    def _add_instances(self, number: int, tile: Tile, instances: Instances) -> None:
        self._instances = self._instances or []
        scores = instances.scores.float().cpu().tolist()
        classes = instances.pred_classes.cpu().tolist()
        for i, (score, label) in enumerate(zip(scores, classes)):
            mask = (instances.pred_masks[i] > 0.5).cpu().numpy()
            part = Part.of(number, label, mask, tile.write, score=score)
            if part is not None:
                self._instances.append(part)

    def _joined_panoptic(self) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        parts = self._segments or []
        ids = np.zeros(self._size, dtype=np.int32)
        segments = []
        for members in join(parts, self._areas, self._agreement):
            number = len(segments) + 1
            painted = False
            for member in members:
                painted |= self._paint(ids, parts[member], number)
            if painted:
                part = parts[members[0]]
                segments.append({"id": number, "isthing": part.isthing, "category_id": part.label})
        return torch.from_numpy(ids), segments

    def _paint(self, ids: np.ndarray, part: Part, number: int) -> bool:
        """Writes a part where its tile decides; whether a pixel was written."""
        area = part.box.intersection(self._tiles[part.tile].own)
        if not area.area:
            return False
        mask = part.mask[area.inside(part.box)]
        ids[area.inside(Box(0, self._size[0], 0, self._size[1]))][mask] = number
        return bool(mask.any())

    def _joined_instances(self, most: int | None) -> Instances:
        parts = self._instances or []
        boxes, masks, scores, classes = [], [], [], []
        for members in join(parts, self._areas, self._agreement):
            group = [parts[i] for i in members]
            box = Box(
                min(p.box.y0 for p in group),
                max(p.box.y1 for p in group),
                min(p.box.x0 for p in group),
                max(p.box.x1 for p in group),
            )
            mask = np.zeros(box.size, dtype=bool)
            for part in group:
                mask[part.box.inside(box)] |= part.mask
            weights = [np.count_nonzero(p.mask) for p in group]
            boxes.append(box)
            masks.append(mask)
            scores.append(float(np.average([p.score for p in group], weights=weights)))
            classes.append(group[0].label)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:most]
        result = Instances(self._size)
        corners = [[boxes[i].x0, boxes[i].y0, boxes[i].x1, boxes[i].y1] for i in order]
        result.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
        result.scores = torch.tensor([scores[i] for i in order])
        result.pred_classes = torch.tensor([classes[i] for i in order], dtype=torch.int64)
        chosen = [boxes[i] for i in order], [masks[i] for i in order]
        result.pred_masks = BoxedMasks(*chosen, self._size)
        return result
