"""Multi-head attention with torch's parameter names and one attention mask for all heads.

``torch.nn.MultiheadAttention`` wants its mask repeated per head and, where a mask is given, leaves
the fused kernels. This module keeps the parameters (published checkpoints load) and calls
``scaled_dot_product_attention`` itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.ops import token_layers


class MultiheadAttention(nn.Module):
    """Multi-head attention, batch first (Vaswani et al., 2017, section 3.2).

    Parameters are those of ``torch.nn.MultiheadAttention``: ``in_proj_weight`` [3C, C] holds the
    query, key and value projections one below the other, ``in_proj_bias`` [3C], ``out_proj``.

    Args:
        embed_dim: channels C, a multiple of ``num_heads``.
        num_heads: heads.
        dropout: probability for attention weights, in training only.

    Raises:
        ValueError: ``embed_dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{embed_dim} channels cannot be split into {num_heads} heads")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        # Shapes, names and initial values as in torch's own module.
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            query: [B, Q, C].
            key: [B, N, C]; the same object as ``query`` in self-attention saves one product.
            value: [B, N, C].
            attend: bool, broadcastable to [B, heads, Q, N]; False is blocked. Every row needs at
                least one True.

        Returns:
            [B, Q, C].
        """
        if key is not query and not self.training and self._has_kernels(query, key, value, attend):
            return self._forward_in_kernels(query, key, value, attend)
        c = self.embed_dim
        w, b = self.in_proj_weight, self.in_proj_bias
        if key is query:
            q, k = F.linear(query, w[: 2 * c], b[: 2 * c]).chunk(2, dim=-1)
        else:
            q, k = F.linear(query, w[:c], b[:c]), F.linear(key, w[c : 2 * c], b[c : 2 * c])
        v = F.linear(value, w[2 * c :], b[2 * c :])

        attended = F.scaled_dot_product_attention(
            self._heads(q),
            self._heads(k),
            self._heads(v),
            attn_mask=attend,
            dropout_p=self.dropout if self.training else 0.0,
        )  # [B, heads, Q, C/heads]
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _has_kernels(
        self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None
    ) -> bool:
        if not query.dim() == key.dim() == 3 or key.shape != value.shape:
            return False
        if len(query) != len(key) or not token_layers.is_mask(attend):
            return False
        weights, depth = (self.in_proj_weight, self.in_proj_bias), self.embed_dim // self.num_heads
        return token_layers.applies(
            query, key, value, *weights, layers=(self.out_proj,), widths=(depth,)
        )

    def _forward_in_kernels(
        self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None
    ) -> Tensor:
        """The same with a kernel that wants keys transposed; no dropout, no gradients."""
        c = self.embed_dim
        w, b = self.in_proj_weight, self.in_proj_bias
        q = F.linear(query, w[:c], b[:c])
        # The bias of keys adds the same to all logits of a row, so softmax does not see it; that of
        # values passes through any weights that sum to one.
        keys = torch.bmm(w[c : 2 * c].expand(len(key), -1, -1), key.transpose(1, 2))  # [B, C, N]
        v = value @ w[2 * c :].t()
        attended = token_layers.cross_attention(q, keys, v, attend, self.num_heads) + b[2 * c :]
        return self.out_proj(attended)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, N, C/heads]
