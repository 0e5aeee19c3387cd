"""The transformer of DETR (Carion et al., ECCV 2020), used by MaskFormer's decoders.

Parameter names are DETR's. Tokens are ``[B, L, C]`` here; positions are added to queries and keys
of every attention, not once to the input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .attention import MultiheadAttention
from .feed_forward import activation_function, feed_forward


class _Layer(nn.Module):
    """Attentions, then a feed-forward, each in a residual with a norm after (or before) it."""

    #: Their names as modules, in order.
    attentions: tuple[str, ...]

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
    ) -> None:
        """
        Args:
            d_model: channels C of the tokens.
            nhead: heads of the attentions; divides C.
            dim_feedforward: width of the feed-forward.
            dropout: of attention weights, hidden features and the residuals.
            activation: a name that ``activation_function`` knows.
            normalize_before: norms before instead of after each sub-layer.
        """
        super().__init__()
        # The order of parts is DETR's: optimizers and random initial values go by it.
        for name in self.attentions:
            self.add_module(name, MultiheadAttention(d_model, nhead, dropout=dropout))
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        parts = range(1, len(self.attentions) + 2)
        for i in parts:
            self.add_module(f"norm{i}", nn.LayerNorm(d_model))
        for i in parts:
            self.add_module(f"dropout{i}", nn.Dropout(dropout))
        self.activation = activation_function(activation)
        self.normalize_before = normalize_before

    def _perceptron(self, x: Tensor) -> Tensor:
        return feed_forward(x, self.linear1, self.activation, self.dropout, self.linear2)


class TransformerEncoderLayer(_Layer):
    """Self-attention and feed-forward."""

    attentions = ("self_attn",)

    def forward(self, src: Tensor, pos: Tensor, attend: Tensor | None = None) -> Tensor:
        """``src`` and ``pos`` ``[B, L, C]``, ``attend`` as in the encoder, to ``[B, L, C]``."""

        def self_attention(x: Tensor) -> Tensor:
            query = x + pos
            return self.dropout1(self.self_attn(query, query, x, attend))

        def perceptron(x: Tensor) -> Tensor:
            return self.dropout2(self._perceptron(x))

        if self.normalize_before:
            src = src + self_attention(self.norm1(src))
            return src + perceptron(self.norm2(src))
        src = self.norm1(src + self_attention(src))
        return self.norm2(src + perceptron(src))


class TransformerDecoderLayer(_Layer):
    """Self-attention of the queries, cross-attention to the memory, feed-forward."""

    attentions = ("self_attn", "multihead_attn")

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        pos: Tensor,
        query_pos: Tensor,
        attend: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            tgt, query_pos: ``[B, Q, C]``.
            memory, pos: ``[B, L, C]``.
            attend: bool ``[B, 1, 1, L]``, False where there is padding; None means none.

        Returns:
            ``[B, Q, C]``.
        """

        def self_attention(x: Tensor) -> Tensor:
            query = x + query_pos
            return self.dropout1(self.self_attn(query, query, x))

        def cross_attention(x: Tensor) -> Tensor:
            key = memory + pos
            query = x + query_pos
            return self.dropout2(self.multihead_attn(query, key, memory, attend))

        def perceptron(x: Tensor) -> Tensor:
            return self.dropout3(self._perceptron(x))

        if self.normalize_before:
            tgt = tgt + self_attention(self.norm1(tgt))
            tgt = tgt + cross_attention(self.norm2(tgt))
            return tgt + perceptron(self.norm3(tgt))
        tgt = self.norm1(tgt + self_attention(tgt))
        tgt = self.norm2(tgt + cross_attention(tgt))
        return self.norm3(tgt + perceptron(tgt))


class TransformerEncoder(nn.Module):
    """Encoder layers in a row, and a final norm if one is given."""

    def __init__(
        self,
        make_layer: Callable[[], TransformerEncoderLayer],
        num_layers: int,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_layer() for _ in range(num_layers))
        self.norm = norm

    def forward(self, src: Tensor, pos: Tensor, attend: Tensor | None = None) -> Tensor:
        """
        Args:
            src, pos: ``[B, L, C]``.
            attend: bool ``[B, 1, 1, L]``, False where there is padding; None means none.

        Returns:
            ``[B, L, C]``.
        """
        for layer in self.layers:
            src = layer(src, pos, attend)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(nn.Module):
    """Decoder layers in a row; every output that is returned has passed the final norm."""

    def __init__(
        self,
        make_layer: Callable[[], TransformerDecoderLayer],
        num_layers: int,
        norm: nn.Module,
        return_intermediate: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_layer() for _ in range(num_layers))
        self.norm = norm
        self.return_intermediate = return_intermediate

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        pos: Tensor,
        query_pos: Tensor,
        attend: Tensor | None = None,
    ) -> Tensor:
        """
        Returns:
            ``[layers, B, Q, C]``, or ``[1, B, Q, C]`` without ``return_intermediate``.
        """
        outputs = []
        for layer in self.layers:
            tgt = layer(tgt, memory, pos, query_pos, attend)
            if self.return_intermediate:
                outputs.append(self.norm(tgt))
        return torch.stack(outputs) if outputs else self.norm(tgt)[None]


class Transformer(nn.Module):
    """DETR's transformer: an encoder over the image's tokens and a decoder over the queries."""

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
        return_intermediate_dec: bool = False,
    ) -> None:
        """
        Args:
            d_model: channels of all tokens.
            normalize_before: norms before instead of after each sub-layer.
            return_intermediate_dec: give the output of every decoder layer, not of the last only.
        """
        super().__init__()
        options = (d_model, nhead, dim_feedforward, dropout, activation, normalize_before)
        self.encoder = TransformerEncoder(
            lambda: TransformerEncoderLayer(*options),
            num_encoder_layers,
            nn.LayerNorm(d_model) if normalize_before else None,
        )
        self.decoder = TransformerDecoder(
            lambda: TransformerDecoderLayer(*options),
            num_decoder_layers,
            nn.LayerNorm(d_model),
            return_intermediate_dec,
        )
        init_xavier(self)
        self.d_model = d_model
        self.nhead = nhead

    def forward(
        self, src: Tensor, mask: Tensor | None, query_embed: Tensor, pos_embed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            src: feature map ``[B, C, H, W]``.
            mask: bool ``[B, H, W]``, True where there is padding; None means none.
            query_embed: ``[Q, C]``, positional part of the queries; their content starts at zero.
            pos_embed: ``[B, C, H, W]``.

        Returns:
            Decoder outputs ``[layers or 1, B, Q, C]`` and the encoded map ``[B, C, H, W]``.
        """
        tokens, pos = to_tokens(src), to_tokens(pos_embed)  # [B, HW, C]
        attend = where_to_attend(mask)  # [B, 1, 1, HW]
        memory = self.encoder(tokens, pos, attend)
        query_pos = query_embed.expand(len(src), -1, -1)  # [B, Q, C]
        outputs = self.decoder(torch.zeros_like(query_pos), memory, pos, query_pos, attend)
        return outputs, to_map(memory, *src.shape[-2:])


def init_xavier(module: nn.Module) -> None:
    """Xavier-uniform for all weights that are matrices; biases and norms stay as they are."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def to_tokens(x: Tensor) -> Tensor:
    """``[B, C, H, W]`` to ``[B, H * W, C]``."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """``[B, H * W, C]`` to ``[B, C, H, W]``, channels last in memory."""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def where_to_attend(mask: Tensor | None) -> Tensor | None:
    """Padding mask bool ``[B, H, W]`` (True: padding) to an attention mask ``[B, 1, 1, H * W]``."""
    return None if mask is None else ~mask.flatten(1)[:, None, None]
