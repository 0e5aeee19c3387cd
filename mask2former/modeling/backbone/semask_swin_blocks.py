"""The semantic layer of SeMask (Jain et al., ICCV workshops 2023): attention between class scores.

Tokens travel as ``[B, H, W, C]`` maps, as in ``swin_blocks``. Parameter names are the published
ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BackboneError
from .swin_blocks import window_partition, window_reverse

# Dropout of the attended features; the published code has no key for it.
SEMANTIC_DROPOUT = 0.1


class SemanticAttention(nn.Module):
    """Tokens whose class scores agree exchange features. [SeMask, section 3.1]

    Queries and keys are class scores (one channel a class), so the query scores, seen as a map, can
    be supervised with the semantic ground truth. A learned scalar weighs the attended features; it
    starts at 0, so that training starts from what the pretrained stages give.
    """

    def __init__(self, dim: int, num_classes: int, drop: float = SEMANTIC_DROPOUT) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.mlp_cls_q = nn.Linear(dim, num_classes)
        self.mlp_cls_k = nn.Linear(dim, num_classes)
        self.mlp_v = nn.Linear(dim, dim)
        self.mlp_res = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: ``[windows, N, C]``.

        Returns:
            Features ``[windows, N, C]`` and class scores (logits) ``[windows, N, K]``.
        """
        scores = self.mlp_cls_q(x)  # [windows, N, K]
        attended = _attention(scores, self.mlp_cls_k(x), self.mlp_v(x))  # [windows, N, C]
        return x + self.gamma * self.proj_drop(self.mlp_res(attended)), scores


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention with one head, ``[windows, N, C]``."""
    # Published without a scale: a product over all classes can leave float16's range, so it is
    # made in float32 under mixed precision, too.
    full = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        heads = [x.to(full)[:, None] for x in (query, key, value)]
        attended = F.scaled_dot_product_attention(*heads, scale=1.0).squeeze(1)
    return attended.to(value.dtype)


class SemanticLayer(nn.Module):
    """A norm, then semantic attention inside windows (or over the whole map)."""

    def __init__(
        self, dim: int, num_classes: int, *, window_size: int | None, num_blocks: int = 1
    ) -> None:
        """
        Args:
            num_classes: K, channels of the class scores.
            window_size: side of the windows in tokens; None attends over the whole map.
            num_blocks: attention blocks one after another.

        Raises:
            BackboneError: without a block there are no class scores to return; no window.
        """
        super().__init__()
        if num_blocks < 1:
            raise BackboneError(
                f"MODEL.SWIN.NUM_SEM_BLOCKS is {num_blocks}, but SeMask needs at least 1; for a "
                "Swin Transformer without semantic attention set MODEL.BACKBONE.NAME "
                "D2SwinTransformer (with MODEL.META_ARCHITECTURE MaskFormer and "
                "MODEL.SEM_SEG_HEAD.NAME MaskFormerHead)"
            )
        if window_size is not None and window_size < 1:
            raise BackboneError(f"MODEL.SWIN.SEM_WINDOW_SIZE is {window_size}, must be at least 1")
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(dim)
        self.class_injection = nn.ModuleList(
            SemanticAttention(dim, num_classes) for _ in range(num_blocks)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, H, W, C]`` to features ``[B, H, W, C]`` and class scores ``[B, H, W, K]``.

        As published there is no skip around the norm, and windows are completed with zeros that
        take part in the attention.
        """
        x = self.norm1(x)
        _, height, width, _ = x.shape
        size = self.window_size
        if size is None:
            return self._attend(x, height, width)
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))  # [B, H', W', C]
        padded_height, padded_width = x.shape[1:3]
        maps = [
            window_reverse(windows, size, padded_height, padded_width)[:, :height, :width]
            for windows in self._attend(window_partition(x, size), size, size)
        ]
        return maps[0], maps[1]

    def _attend(self, windows: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Whole windows ``[windows, height, width, C]``; scores are those of the last block."""
        x = windows.flatten(1, 2)
        for block in self.class_injection:
            x, scores = block(x)
        return x.unflatten(1, (height, width)), scores.unflatten(1, (height, width))
