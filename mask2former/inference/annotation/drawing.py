"""Proposals drawn over their image: the same bytes for the same proposals."""

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np

from detectron2.data import Metadata
from detectron2.utils.colormap import colormap
from mask2former.data.cvat import decode_mask

from .proposals import Proposal, class_names

OPACITY = 0.45
_UNKNOWN = (255, 255, 255)
# Further objects of a class: turns of the hue (of 1) and factors of the brightness, in turn.
_VARIANTS = ((0.0, 1.0), (0.07, 0.8), (-0.07, 0.9), (0.035, 0.6), (-0.035, 0.7), (0.1, 0.55))


def label_colors(
    metadata: Metadata, label_map: Mapping[str, str] | None = None
) -> dict[str, tuple[int, int, int]]:
    """Label -> RGB: the data set's colours, else detectron2's colour map.

    Args:
        metadata: class names and colours.
        label_map: class name of the model -> label.
    """
    table = colormap(rgb=True, maximum=255)
    colors: dict[str, tuple[int, int, int]] = {}
    for kind, task in (("stuff", "semantic"), ("thing", "instance")):
        names = metadata.get(f"{kind}_classes") or class_names(metadata, task)
        given = metadata.get(f"{kind}_colors") or []
        for i, name in enumerate(names):
            color = given[i] if i < len(given) else table[i % len(table)]
            colors[(label_map or {}).get(name, name)] = tuple(int(v) for v in color)
    return colors


def proposal_colors(
    proposals: Sequence[Proposal], colors: Mapping[str, Sequence[int]]
) -> list[tuple[int, int, int]]:
    """One RGB colour a proposal: its label's, varied a little for further ones of the label."""
    seen: Counter[str] = Counter()
    chosen = []
    for proposal in proposals:
        base = tuple(colors.get(proposal.label, _UNKNOWN))
        turn, factor = _VARIANTS[seen[proposal.label] % len(_VARIANTS)]
        seen[proposal.label] += 1
        if factor == 1.0:
            chosen.append(base)
            continue
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in base))
        varied = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, max(value, 0.5) * factor)
        chosen.append(tuple(round(255 * v) for v in varied))
    return chosen


def draw_proposals(
    image: np.ndarray,
    proposals: Sequence[Proposal],
    colors: Mapping[str, Sequence[int]],
    threshold: float = 0.0,
    *,
    opacity: float = OPACITY,
    scale: int = 1,
) -> np.ndarray:
    """Fills, outlines and names each proposal.

    Args:
        image: uint8 [H, W, 3], BGR.
        proposals: best first; the best is drawn last, on top.
        colors: label -> RGB, see `label_colors`; objects of one label differ a little.
        threshold: proposals that score this or less are left out (published: files hold scores
            that reach the threshold, drawings those above it).
        opacity: of the fill, in [0, 1].
        scale: how many times larger than the image the drawing is; on small images, names would
            hide what they name.

    Returns:
        uint8 [scale * H, scale * W, 3], BGR.
    """
    height, width = image.shape[:2]
    drawn = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    shown = [
        (proposal, color[::-1])
        for proposal, color in zip(proposals, proposal_colors(proposals, colors))
        if proposal.score is None or proposal.score > threshold
    ]
    thickness = max(1, round(scale * min(height, width) / 500))
    for proposal, color in reversed(shown):
        mask = proposal.pixels(height, width).repeat(scale, axis=0).repeat(scale, axis=1)
        fill = np.array(color, dtype=np.float32) * opacity
        drawn[mask] = (drawn[mask] * (1 - opacity) + fill).astype(np.uint8)
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
        )
        cv2.drawContours(drawn, outlines, -1, color, thickness, cv2.LINE_AA)
    for proposal, color in reversed(shown):
        _write_label(drawn, proposal, color, scale)
    return drawn


def _write_label(
    drawn: np.ndarray, proposal: Proposal, color: Sequence[int], enlarged: int
) -> None:
    height, width = drawn.shape[:2]
    text = proposal.label if proposal.score is None else f"{proposal.label} {proposal.score:.0%}"
    scale = max(0.35, min(height, width) / 1200)
    thickness = max(1, round(scale * 1.5))
    (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    center_x, center_y = (enlarged * v for v in _inner_point(proposal))
    x = int(np.clip(center_x - w // 2, 0, max(width - w, 0)))
    y = int(np.clip(center_y + h // 2, h + 2, max(height - below, h + 2)))
    cv2.rectangle(drawn, (x - 1, y - h - 2), (x + w + 1, y + below), (0, 0, 0), -1)
    bright = [int(128 + c / 2) for c in color]
    cv2.putText(
        drawn, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, bright, thickness, cv2.LINE_AA
    )


def _inner_point(proposal: Proposal) -> tuple[float, float]:
    """x, y of the point of a mask that is farthest from its edge: the name lies on its object."""
    mask = proposal.mask
    box = replace(mask, left=0, top=0)
    inside = decode_mask(box, mask.height, mask.width).astype(np.uint8)
    factor = max(1, -(-max(inside.shape) // 512))  # large masks need not be looked at closely
    inside = np.pad(inside[::factor, ::factor], 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return mask.left + (x - 0.5) * factor, mask.top + (y - 0.5) * factor
