"""Outlines of the thing classes, as polygons around the origin with circumradius 1."""

import numpy as np


def _around(angles: np.ndarray, radii: np.ndarray | float = 1.0) -> np.ndarray:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=-1)


def _regular(corners: int) -> np.ndarray:
    return _around(np.arange(corners) * (2 * np.pi / corners) - np.pi / 2)


def _star(points: int = 5, waist: float = 0.45) -> np.ndarray:
    angles = np.arange(2 * points) * (np.pi / points) - np.pi / 2
    return _around(angles, np.where(np.arange(2 * points) % 2, waist, 1.0))


def _cross(arm: float = 0.34) -> np.ndarray:
    reach = np.sqrt(1.0 - arm**2)  # the arm's corners lie on the unit circle
    quarter = np.array([[arm, arm], [arm, reach], [-arm, reach]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k).T for k in range(4)])


# Contours of one class fill by the even-odd rule: the second one of a ring is its hole.
OUTLINES: dict[str, list[np.ndarray]] = {
    "circle": [_regular(48)],
    "square": [_regular(4)],
    "triangle": [_regular(3)],
    "star": [_star()],
    "ring": [_regular(48), 0.52 * _regular(48)],
    "cross": [_cross()],
}


def place_outline(
    name: str, centre: tuple[float, float], radius: float, angle: float, stretch: float
) -> list[np.ndarray]:
    """Rotates, stretches and moves an outline.

    Args:
        name: a key of `OUTLINES`.
        centre: (x, y) in pixels.
        radius: circumradius in pixels before stretching.
        angle: rotation in radians.
        stretch: x is multiplied by its square root and y divided by it, so the area stays.

    Returns:
        one float64 [N, 2] array of (x, y) a contour.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    rotate = np.array([[cos, -sin], [sin, cos]])
    scale = radius * np.array([np.sqrt(stretch), 1.0 / np.sqrt(stretch)])
    return [(contour @ rotate.T) * scale + centre for contour in OUTLINES[name]]
