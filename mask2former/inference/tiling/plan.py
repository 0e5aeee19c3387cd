"""Where the tiles of an image lie."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Box:
    """Rows ``y0`` to ``y1`` and columns ``x0`` to ``x1``, ends exclusive."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def area(self) -> int:
        """Pixels; 0 where the box is empty."""
        height, width = self.size
        return max(height, 0) * max(width, 0)

    def intersection(self, other: "Box") -> "Box":
        """What both cover; may be empty."""
        return Box(
            max(self.y0, other.y0),
            min(self.y1, other.y1),
            max(self.x0, other.x0),
            min(self.x1, other.x1),
        )

    def inside(self, outer: "Box") -> tuple[slice, slice]:
        """Slices that cut this box out of an array that covers ``outer``."""
        rows = slice(self.y0 - outer.y0, self.y1 - outer.y0)
        return rows, slice(self.x0 - outer.x0, self.x1 - outer.x0)


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        read: the pixels of the network's input.
        write: the same area in the output, which may have another resolution.
        own: the part of ``write`` that this tile decides: overlaps are split in the middle.
    """

    read: Box
    write: Box
    own: Box


def plan_tiles(
    size: tuple[int, int], output: tuple[int, int], tile: tuple[int, int], overlap: int
) -> list[Tile]:
    """Tiles of equal size that cover an image, row by row; one where the image fits into a tile.

    Args:
        size: height and width of the network's input.
        output: height and width of the result.
        tile: largest height and width of a tile.
        overlap: least overlap of neighbours in pixels of the input.

    Raises:
        ValueError: the overlap is not smaller than the tile.
    """
    spans = []
    for length, wanted, most in zip(size, output, tile):
        if length > most and not 0 <= overlap < most:
            raise ValueError(
                f"TEST.TILING.OVERLAP {overlap} must be at least 0 and less than TEST.TILING.SIZE "
                f"{tile}"
            )
        spans.append(_spans(length, wanted, most, overlap))
    return [
        Tile(Box(*r[0], *c[0]), Box(*r[1], *c[1]), Box(*r[2], *c[2]))
        for r in spans[0]
        for c in spans[1]
    ]


Span = tuple[int, int]


def _spans(length: int, output: int, most: int, overlap: int) -> list[tuple[Span, Span, Span]]:
    """(read, write, own) of the tiles along one side."""
    if length <= most:
        starts = [0]
    else:
        count = -(-(length - overlap) // (most - overlap))
        starts = [round(i * (length - most) / (count - 1)) for i in range(count)]
    reads = [(start, min(start + most, length)) for start in starts]
    scale = output / length
    writes = [(round(a * scale), round(b * scale)) for a, b in reads]
    edges = [0]
    for (_, end), (start, _) in pairwise(writes):
        edges.append((end + start) // 2)
    edges.append(output)
    return [(r, w, own) for r, w, own in zip(reads, writes, pairwise(edges))]
