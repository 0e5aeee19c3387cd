"""Which parts found in neighbouring tiles are one object."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from .plan import Box


@dataclass
class Part:
    """An object as one tile sees it.

    Attributes:
        tile: number of the tile.
        label: class.
        box: tight, in the coordinates of the whole output.
        mask: bool, of the box.
        score: confidence.
        isthing: stuff of one class is always joined.
    """

    tile: int
    label: int
    box: Box
    mask: np.ndarray
    score: float = 1.0
    isthing: bool = True

    @classmethod
    def of(cls, tile: int, label: int, mask: np.ndarray, at: Box, **values) -> "Part | None":
        """From a mask of a tile that lies ``at`` a box; None where it is empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        box = Box(int(at.y0 + y0), int(at.y0 + y1), int(at.x0 + x0), int(at.x0 + x1))
        return cls(tile, label, box, mask[y0:y1, x0:x1].copy(), **values)


def join(parts: Sequence[Part], areas: Sequence[Box], agreement: float) -> list[list[int]]:
    """Groups parts that are one object.

    Two parts of one class from two overlapping tiles belong together when, inside the overlap of
    their tiles, their masks agree: intersection over union above ``agreement``, or one of them lies
    nearly (more than 80 %) within the other, as where a tile's border cuts an object. Joins are
    made best first; a group has at most one part of each tile, so neighbours of one class are not
    chained together.

    Args:
        parts: of all tiles.
        areas: of the tiles, by number.
        agreement: in (0, 1).

    Returns:
        groups of positions in ``parts``, in the order of their first member.
    """
    candidates = []
    for i, j, shared in _neighbours(parts, areas):
        if parts[i].box.intersection(parts[j].box).area:
            fit = _fit(parts[i], parts[j], shared)
            if fit > agreement:
                candidates.append((fit, i, j))
    groups = _Groups(len(parts))
    for _, i, j in sorted(candidates, reverse=True):
        tiles_i = {parts[k].tile for k in groups.members(i)}
        tiles_j = {parts[k].tile for k in groups.members(j)}
        if not tiles_i & tiles_j:
            groups.unite(i, j)
    first_of_stuff: dict[int, int] = {}
    for i, part in enumerate(parts):
        if not part.isthing:
            groups.unite(first_of_stuff.setdefault(part.label, i), i)
    return groups.all()


def _neighbours(parts: Sequence[Part], areas: Sequence[Box]) -> Iterator[tuple[int, int, Box]]:
    """Pairs of things of one class in overlapping tiles, i < j, and what both tiles see.

    Only tiles that overlap are gone through: all pairs of a large image's parts are too many.
    """
    by_tile: dict[int, dict[int, list[int]]] = {}
    for i, part in enumerate(parts):
        if part.isthing:
            by_tile.setdefault(part.tile, {}).setdefault(part.label, []).append(i)
    for a, b in combinations(by_tile, 2):
        shared = areas[a].intersection(areas[b])
        if not shared.area:
            continue
        for label in by_tile[a].keys() & by_tile[b].keys():
            for i, j in product(by_tile[a][label], by_tile[b][label]):
                yield min(i, j), max(i, j), shared


def _fit(a: Part, b: Part, shared: Box) -> float:
    """Agreement of two parts inside the area that both tiles see, in [0, 1]."""
    ours, theirs = (p.box.intersection(shared) for p in (a, b))
    if not ours.area or not theirs.area:
        return 0.0
    area_a = np.count_nonzero(a.mask[ours.inside(a.box)])
    area_b = np.count_nonzero(b.mask[theirs.inside(b.box)])
    both = ours.intersection(theirs)
    if not both.area or not area_a or not area_b:
        return 0.0
    common = np.count_nonzero(a.mask[both.inside(a.box)] & b.mask[both.inside(b.box)])
    union_fit = common / (area_a + area_b - common)
    within = common / min(area_a, area_b)
    return max(union_fit, within if within > 0.8 else 0.0)


class _Groups:
    """Disjoint sets of positions."""

    def __init__(self, count: int) -> None:
        self._group = {i: [i] for i in range(count)}

    def members(self, i: int) -> list[int]:
        return self._group[i]

    def unite(self, i: int, j: int) -> None:
        first, second = self._group[i], self._group[j]
        if first is second:
            return
        first.extend(second)
        for k in second:
            self._group[k] = first

    def all(self) -> list[list[int]]:
        seen, out = set(), []
        for members in self._group.values():
            if id(members) not in seen:
                seen.add(id(members))
                out.append(sorted(members))
        return out
