"""Sine position embeddings on the image plane (DETR, generalising "Attention Is All You Need")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """Half of the channels encode the row, half the column, by sines and cosines in turn."""

    def __init__(
        self,
        num_pos_feats: int = 64,
        temperature: float = 10000,
        normalize: bool = False,
        scale: float | None = None,
    ) -> None:
        """
        Args:
            num_pos_feats: channels per axis; the embedding has twice as many.
            temperature: ratio of the longest to the shortest wavelength, in radians.
            normalize: scale positions to ``(0, scale]`` whatever the size of the map.
            scale: upper end of normalised positions; 2 pi by default.

        Raises:
            ValueError: if ``scale`` is given without ``normalize``.
        """
        super().__init__()
        if scale is not None and not normalize:
            raise ValueError("scale has a meaning only with normalize=True")
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature
        self.normalize = normalize
        self.scale = 2 * math.pi if scale is None else scale

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: ``[B, C, H, W]``; only its size and device are used.
            mask: bool ``[B, H, W]``, True where there is padding; None means none.

        Returns:
            float32 ``[B, 2 * num_pos_feats, H, W]``, channels last in memory.
        """
        batch, _, height, width = x.shape
        if mask is None:
            # Without padding, rows and columns are independent: sines for H + W positions only,
            # cheap enough to be made anew at every call.
            rows = torch.arange(1, height + 1, dtype=torch.float32, device=x.device)
            columns = torch.arange(1, width + 1, dtype=torch.float32, device=x.device)
            pos_y = self._encode(rows, rows[-1:])[:, None].expand(-1, width, -1)  # [H, W, C/2]
            pos_x = self._encode(columns, columns[-1:])[None].expand(height, -1, -1)
            embedding = torch.cat([pos_y, pos_x], -1).expand(batch, -1, -1, -1)  # [B, H, W, C]
        else:
            valid = (~mask).to(torch.float32)
            rows, columns = valid.cumsum(1), valid.cumsum(2)  # [B, H, W]
            pos_y = self._encode(rows, rows[:, -1:, :])  # [B, H, W, C/2]
            pos_x = self._encode(columns, columns[:, :, -1:])
            embedding = torch.cat([pos_y, pos_x], -1)
        return embedding.permute(0, 3, 1, 2)

    def _encode(self, position: Tensor, last: Tensor) -> Tensor:
        """``[...]`` positions, counted from 1 up to ``last``, to ``[..., num_pos_feats]``."""
        if self.normalize:
            position = position / (last + 1e-6) * self.scale
        channel = torch.arange(self.num_pos_feats, dtype=torch.float32, device=position.device)
        pair = torch.div(channel, 2, rounding_mode="floor")
        angle = position[..., None] / self.temperature ** (2 * pair / self.num_pos_feats)
        return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)
