"""Polygons moved all at once are those that detectron2's transforms give one by one."""

import numpy as np
import pytest

from detectron2.data import transforms as T
from mask2former.data.dataset_mappers.polygons import move_polygons


def outline(rng, kind: str) -> np.ndarray:
    points = int(rng.integers(3, 30))
    centre = rng.uniform(-50, 350, 2)
    if kind == "star":
        angles = np.sort(rng.uniform(0, 2 * np.pi, points))
        radius = rng.uniform(5, 150, (points, 1))
        return centre + radius * np.stack([np.cos(angles), np.sin(angles)], -1)
    if kind == "tangle":  # crosses itself
        return rng.uniform(0, 300, (points, 2))
    if kind == "grid":  # repeated and collinear points
        return np.round(centre + rng.integers(0, 4, (points, 2)) * 30.0)
    return centre + np.arange(points)[:, None] * [1.0, 0.0]  # no area


CHAINS = {
    "jitter": [
        T.HFlipTransform(300),
        T.ResizeTransform(200, 300, 260, 390, 2),
        T.CropTransform(70, 40, 128, 128),
        T.PadTransform(0, 0, 20, 30, 128, 128, 0),
    ],
    "two crops": [T.CropTransform(20, 30, 200, 150), T.CropTransform(0, 60, 90, 60)],
    "no crop": [T.ResizeTransform(200, 300, 100, 150, 2), T.VFlipTransform(100)],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", ["star", "tangle", "grid", "line"])
def test_the_same_points_in_the_same_order(chain, kind):
    rng = np.random.default_rng(0)
    steps = CHAINS[chain]
    found = 0
    for _ in range(40):
        objects = [[outline(rng, kind) for _ in range(rng.integers(3))] for _ in range(4)]
        before = [[p.copy() for p in parts] for parts in objects]
        moved = move_polygons(steps, objects)
        for mine, given, kept in zip(moved, objects, before):
            plain = T.TransformList(steps).apply_polygons([p.copy() for p in given])
            assert len(mine) == len(plain)
            for one, other in zip(mine, plain):
                np.testing.assert_array_equal(one, other)
            assert all(np.array_equal(a, b) for a, b in zip(given, kept))
            found += len(mine)
    # A line has no inside; a crop drops it.
    assert (found == 0) == (kind == "line" and chain != "no crop")


def test_nothing_to_move():
    assert move_polygons(CHAINS["jitter"], []) == []
    assert move_polygons(CHAINS["jitter"], [[], []]) == [[], []]
