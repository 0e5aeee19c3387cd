"""Proposals drawn over their image: the same bytes for the same proposals."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from .proposals import Proposal

_OPACITY = 0.45


def draw_proposals(
    image: np.ndarray,
    proposals: Sequence[Proposal],
    colors: Mapping[str, Sequence[int]],
    threshold: float = 0.0,
) -> np.ndarray:
    """Fills, outlines and names each proposal.

    Args:
        image: uint8 [H, W, 3], BGR.
        proposals: best first; the best is drawn last, on top.
        colors: label -> RGB.
        threshold: proposals that score this or less are left out (published: files hold scores
            that reach the threshold, drawings those above it).

    Returns:
        uint8 [H, W, 3], BGR.
    """
    height, width = image.shape[:2]
    drawn = image.copy()
    shown = [p for p in proposals if p.score is None or p.score > threshold]
    thickness = max(1, round(min(height, width) / 500))
    for proposal in reversed(shown):
        color = np.array(colors.get(proposal.label, (255, 255, 255))[::-1], dtype=np.float32)
        mask = proposal.pixels(height, width)
        drawn[mask] = (drawn[mask] * (1 - _OPACITY) + color * _OPACITY).astype(np.uint8)
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
        )
        cv2.drawContours(drawn, outlines, -1, color.tolist(), thickness, cv2.LINE_AA)
    for proposal in reversed(shown):
        _write_label(drawn, proposal, colors.get(proposal.label, (255, 255, 255))[::-1])
    return drawn


def _write_label(drawn: np.ndarray, proposal: Proposal, color: Sequence[int]) -> None:
    height, width = drawn.shape[:2]
    text = proposal.label if proposal.score is None else f"{proposal.label} {proposal.score:.0%}"
    scale = max(0.35, min(height, width) / 1200)
    thickness = max(1, round(scale * 1.5))
    (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    mask = proposal.mask
    x = int(np.clip(mask.left + (mask.width - w) // 2, 0, max(width - w, 0)))
    y = int(np.clip(mask.top + mask.height // 2, h + 2, max(height - below, h + 2)))
    cv2.rectangle(drawn, (x - 1, y - h - 2), (x + w + 1, y + below), (0, 0, 0), -1)
    bright = [int(128 + c / 2) for c in color]
    cv2.putText(
        drawn, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, bright, thickness, cv2.LINE_AA
    )
