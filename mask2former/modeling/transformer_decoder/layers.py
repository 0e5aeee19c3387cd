"""The parts of a Mask2Former decoder layer (section 3.2.1): attention, feed-forward, heads."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.ops import token_layers

from .attention import MultiheadAttention
from .feed_forward import feed_forward


class _ResidualBlock(nn.Module):
    """A residual branch with its layer norm before (``normalize_before``) or after the sum."""

    def __init__(self, d_model: int, normalize_before: bool) -> None:
        super().__init__()
        self.d_model = d_model
        self.normalize_before = normalize_before

    def _residual(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.normalize_before:
            return x + branch(self.norm(x))
        return self.norm(x + branch(x))

    def _finish(self) -> None:
        # The norm is registered last, as published: parameter order is optimizer group order.
        self.norm = nn.LayerNorm(self.d_model)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


class SelfAttentionLayer(_ResidualBlock):
    """Queries [B, Q, C] look at each other."""

    def __init__(
        self, d_model: int, nhead: int, *, dropout: float = 0.0, normalize_before: bool = False
    ) -> None:
        super().__init__(d_model, normalize_before)
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self._finish()

    def forward(self, queries: Tensor, query_pos: Tensor) -> Tensor:
        def branch(x: Tensor) -> Tensor:
            positioned = x + query_pos
            return self.dropout(self.self_attn(positioned, positioned, x))

        return self._residual(queries, branch)


class CrossAttentionLayer(_ResidualBlock):
    """Queries [B, Q, C] look at the pixels of one feature map, [B, hw, C], inside their masks."""

    def __init__(
        self, d_model: int, nhead: int, *, dropout: float = 0.0, normalize_before: bool = False
    ) -> None:
        super().__init__(d_model, normalize_before)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self._finish()

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        attend: Tensor | None,
        query_pos: Tensor,
    ) -> Tensor:
        """``keys``: ``values`` with positions; ``attend``: bool [B, 1, Q, hw], False: blocked."""

        def branch(x: Tensor) -> Tensor:
            return self.dropout(self.multihead_attn(x + query_pos, keys, values, attend))

        return self._residual(queries, branch)


class FFNLayer(_ResidualBlock):
    """Two linear layers with a ReLU between them, on each query alone."""

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int = 2048,
        *,
        dropout: float = 0.0,
        normalize_before: bool = False,
    ) -> None:
        super().__init__(d_model, normalize_before)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self._finish()

    def forward(self, queries: Tensor) -> Tensor:
        if not self.training and not self.normalize_before and self._has_kernels(queries):
            parts = self.linear1, self.linear2, self.norm
            return token_layers.perceptron_then_norm(queries, *parts)
        return self._residual(
            queries,
            lambda x: self.dropout(
                feed_forward(x, self.linear1, torch.relu_, self.dropout, self.linear2)
            ),
        )

    def _has_kernels(self, queries: Tensor) -> bool:
        parts, width = (self.linear1, self.linear2, self.norm), queries.shape[-1]
        if not token_layers.is_untouched(self.dropout, nn.Dropout, nn.Identity):
            return False
        if not token_layers.applies(queries, layers=parts):
            return False
        return token_layers.width_after(width, *parts) == width


class MLP(nn.Module):
    """``num_layers`` linear layers with ReLU between them, as in DETR's box head."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.num_layers = num_layers
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
