"""A model that looks at large images tile by tile."""

import logging
from typing import Any

import torch
from torch import nn

from detectron2.config import CfgNode

from .plan import plan_tiles
from .stitching import Stitcher

logger = logging.getLogger(__name__)


class TiledModel(nn.Module):
    """Wraps a model; in evaluation, images larger than a tile are cut, predicted and stitched.

    Images that fit into one tile go through the model as they are, with the same result. For
    others, memory is that of the largest tile, plus one label map and the objects' cropped masks:
    it does not grow with the number of classes or queries.

    The results differ from whole-image inference where an object or the context it needs is larger
    than a tile; ``overlap`` should exceed the size of most objects.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        size: tuple[int, int],
        overlap: int,
        agreement: float = 0.5,
        max_instances: int | None = None,
    ) -> None:
        """
        Args:
            model: takes and gives detectron2's lists of dicts.
            size: largest height and width of a tile, in pixels of the network's input.
            overlap: least overlap of neighbours, in the same pixels.
            agreement: how much two parts must agree inside an overlap to be one object.
            max_instances: most instances an image.
        """
        super().__init__()
        self.model = model
        self.size = (int(size[0]), int(size[1]))
        self.overlap = int(overlap)
        self.agreement = agreement
        self.max_instances = max_instances
        self._reported: set[tuple[int, int]] = set()
        self.train(model.training)  # a wrapper around a model in evaluation is in evaluation

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """As the model; see the class for large images."""
        if self.training or all(self._fits(record) for record in batched_inputs):
            return self.model(batched_inputs)
        return [
            self.model([record])[0] if self._fits(record) else self._in_tiles(record)
            for record in batched_inputs
        ]

    def _fits(self, record: dict[str, Any]) -> bool:
        height, width = record["image"].shape[-2:]
        return height <= self.size[0] and width <= self.size[1]

    @torch.no_grad()
    def _in_tiles(self, record: dict[str, Any]) -> dict[str, Any]:
        image = record["image"]
        size = (image.shape[-2], image.shape[-1])
        output = (int(record.get("height", size[0])), int(record.get("width", size[1])))
        tiles = plan_tiles(size, output, self.size, self.overlap)
        if size not in self._reported:
            self._reported.add(size)
            logger.info(
                "Images of %d x %d: %d tiles of at most %d x %d", *size, len(tiles), *self.size
            )
        stitcher = Stitcher(tiles, output, self.agreement)
        for number, tile in enumerate(tiles):
            rows, columns = slice(tile.read.y0, tile.read.y1), slice(tile.read.x0, tile.read.x1)
            height, width = tile.write.size
            part = {"image": image[:, rows, columns], "height": height, "width": width}
            stitcher.add(number, self.model([part])[0])
        return stitcher.finish(self.max_instances)


def check_tiling(cfg: CfgNode) -> None:
    """Looks at the keys of TEST.TILING, if it is on.

    Raises:
        ValueError: names the key that cannot be.
    """
    tiling = cfg.TEST.TILING
    if not tiling.ENABLED:
        return
    size = tuple(tiling.SIZE)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"TEST.TILING.SIZE {size} must be a height and a width in pixels")
    if not 0 <= tiling.OVERLAP < min(size):
        raise ValueError(
            f"TEST.TILING.OVERLAP {tiling.OVERLAP} must be at least 0 and less than "
            f"TEST.TILING.SIZE {size}"
        )


def tiled(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """The model in tiles if TEST.TILING.ENABLED, else the model itself.

    Raises:
        ValueError: see :func:`check_tiling`.
    """
    check_tiling(cfg)
    tiling = cfg.TEST.TILING
    if not tiling.ENABLED:
        return model
    return TiledModel(
        model,
        size=tuple(tiling.SIZE),
        overlap=tiling.OVERLAP,
        agreement=tiling.AGREEMENT,
        max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
    )
