"""Attention and the blocks of a decoder layer compute what torch's own modules compute."""

import pytest
import torch
from torch import nn

from mask2former.modeling.transformer_decoder.attention import MultiheadAttention
from mask2former.modeling.transformer_decoder.layers import (
    MLP,
    CrossAttentionLayer,
    FFNLayer,
    SelfAttentionLayer,
)

BATCH, QUERIES, PIXELS, CHANNELS, HEADS = 2, 5, 11, 16, 4


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    sizes = {"x": QUERIES, "query_pos": QUERIES, "memory": PIXELS, "memory_pos": PIXELS}
    out = {k: torch.randn(BATCH, n, CHANNELS, dtype=torch.float64) for k, n in sizes.items()}
    out["attend"] = torch.rand(BATCH, 1, QUERIES, PIXELS) > 0.5
    out["attend"][..., 0] = True
    return out


def double(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def with_torch_attention(ours: MultiheadAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    return theirs


def test_attention_equals_torchs_with_the_mask_repeated_per_head(tensors):
    ours = double(MultiheadAttention(CHANNELS, HEADS))
    blocked = ~tensors["attend"].expand(-1, HEADS, -1, -1).flatten(0, 1)
    args = tensors["x"], tensors["memory"] + tensors["memory_pos"], tensors["memory"]
    expected, _ = with_torch_attention(ours)(*args, attn_mask=blocked)
    torch.testing.assert_close(ours(*args, tensors["attend"]), expected)


def test_self_attention_equals_torchs(tensors):
    ours = double(MultiheadAttention(CHANNELS, HEADS))
    query = tensors["x"] + tensors["query_pos"]
    expected, _ = with_torch_attention(ours)(query, query, tensors["x"])
    torch.testing.assert_close(ours(query, query, tensors["x"]), expected)
    torch.testing.assert_close(ours(query, query.clone(), tensors["x"]), expected)


def test_channels_must_be_divisible_by_heads():
    with pytest.raises(ValueError, match="15 channels"):
        MultiheadAttention(15, 4)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_blocks_are_residuals_with_the_norm_after_or_before(tensors, pre_norm):
    x, query_pos = tensors["x"], tensors["query_pos"]

    def residual(layer, branch):
        return x + branch(layer.norm(x)) if pre_norm else layer.norm(x + branch(x))

    layer = double(SelfAttentionLayer(CHANNELS, HEADS, normalize_before=pre_norm))
    expected = residual(layer, lambda y: layer.self_attn(y + query_pos, y + query_pos, y))
    torch.testing.assert_close(layer(x, query_pos), expected)

    layer = double(CrossAttentionLayer(CHANNELS, HEADS, normalize_before=pre_norm))
    memory, memory_pos, attend = (tensors[k] for k in ("memory", "memory_pos", "attend"))
    expected = residual(
        layer,
        lambda y: layer.multihead_attn(y + query_pos, memory + memory_pos, memory, attend),
    )
    options = {"attend": attend, "query_pos": query_pos}
    torch.testing.assert_close(layer(x, memory + memory_pos, memory, **options), expected)

    layer = double(FFNLayer(CHANNELS, 24, normalize_before=pre_norm))
    expected = residual(layer, lambda y: layer.linear2(layer.linear1(y).relu()))
    torch.testing.assert_close(layer(x), expected)


def test_mlp_has_relu_between_its_layers():
    mlp = double(MLP(3, 5, 2, 3))
    x = torch.randn(4, 3, dtype=torch.float64)
    first, second, third = mlp.layers
    torch.testing.assert_close(mlp(x), third(second(first(x).relu()).relu()))
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(5, 3), (5, 5), (2, 5)]
