"""Attention of token layers, to many keys and in windows, equals a few lines of PyTorch."""

import pytest
import torch
from token_layer_cases import difference, in_float64, linear, norm, randn, threads

from mask2former.modeling.backbone.swin_blocks import SwinTransformerBlock, shifted_window_mask
from mask2former.ops import token_layers, use_implementation
from mask2former.ops.libraries import torch_blas

pytestmark = pytest.mark.usefixtures("token_kernel", "no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def attention_in_float64(query, keys, value, attend, heads):
    query, value = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, value))
    logits = query @ keys.double().unflatten(1, (heads, -1)) * query.shape[-1] ** -0.5
    if attend is not None:
        logits = logits.masked_fill(~attend, -torch.inf)
    return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)


def attention_inputs(batch, queries, keys, channels, *, large=1.0):
    query = large * randn(batch, queries, channels)
    return query, randn(batch, channels, keys, seed=1), randn(batch, keys, channels, seed=2)


def where(*shape, share=0.5, seed=3):
    """Random, with a True in every row."""
    attend = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share
    attend[..., -1] |= ~attend.any(-1)
    return attend


@pytest.mark.parametrize("keys", [1, 5, 16, 255, 256, 257, 512, 600])
@pytest.mark.parametrize("masked", ["everywhere", "shared", "per head", "per image", "each"])
def test_cross_attention(keys, masked):
    for queries in (1, 7, 20):
        inputs = attention_inputs(2, queries, keys, 64)
        shapes = {"shared": (1, 1), "per head": (1, 2), "per image": (2, 1), "each": (2, 2)}
        attend = where(*shapes[masked], queries, keys) if masked in shapes else None
        found = token_layers.cross_attention(*inputs, attend, 2)
        assert difference(found, attention_in_float64(*inputs, attend, 2)) < 2e-6


@pytest.mark.parametrize("depth", [16, 32, 48])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_heads_of_any_depth_with_any_threads(depth, count):
    inputs = attention_inputs(1, 19, 300, 3 * depth)
    attend = where(1, 1, 19, 300)
    wanted = attention_in_float64(*inputs, attend, 3)
    with threads(count):
        assert difference(token_layers.cross_attention(*inputs, attend, 3), wanted) < 2e-6


def test_queries_keys_and_masks_may_lie_anyhow():
    query = randn(1, 6, 32).expand(3, -1, -1)
    keys, value = randn(3, 290, 32).transpose(1, 2), randn(3, 32, 290, seed=1).transpose(1, 2)
    for attend in (
        where(3, 1, 290, 6).transpose(2, 3) | torch.eye(6, 290).bool(),
        where(3, 2, 6, 580)[..., ::2] | torch.eye(6, 290).bool(),
        where(290),
        where(6, 290),
        where(3, 1, 1, 290),
        torch.ones(3, 1, 6, 1).bool(),
        where(3, 1, 6, 300)[..., 7:297] | torch.eye(6, 290).bool(),
    ):
        found = token_layers.cross_attention(query, keys, value, attend, 2)
        assert difference(found, attention_in_float64(query, keys, value, attend, 2)) < 2e-6


@pytest.mark.parametrize("only", [0, 255, 256, 300, 599])
def test_rows_that_may_look_at_one_key_only_give_its_value(only):
    query, keys, value = attention_inputs(1, 9, 600, 32)
    attend = torch.zeros(1, 1, 9, 600, dtype=torch.bool)
    attend[..., only] = True
    attend[:, :, 4] = True  # among rows that look everywhere
    found = token_layers.cross_attention(query, keys, value, attend, 2)
    assert difference(found, attention_in_float64(query, keys, value, attend, 2)) < 2e-6
    torch.testing.assert_close(found[0, 0], value[0, only], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("large", [1e2, 1e4, -1e4])
@pytest.mark.parametrize("share", [0.01, 1.0])
def test_large_logits(large, share):
    inputs, attend = attention_inputs(2, 5, 600, 64, large=large), where(1, 1, 5, 600, share=share)
    found = token_layers.cross_attention(*inputs, attend, 2)
    wanted = attention_in_float64(*inputs, attend, 2)
    assert found.isfinite().all()
    # Products of thousands are rounded: as in PyTorch, a logit is known to 1e-3 or so.
    readable = torch.nn.functional.scaled_dot_product_attention(
        *(x.unflatten(-1, (2, -1)).transpose(1, 2) for x in (inputs[0], inputs[1].mT, inputs[2])),
        attn_mask=attend,
    )
    error = (readable.transpose(1, 2).flatten(2) - wanted).abs().max()
    assert (found - wanted).abs().max() < 3 * error + 1e-5


def test_no_queries_or_images_give_none():
    for batch, queries in ((0, 3), (2, 0)):
        inputs = attention_inputs(batch, queries, 40, 32)
        assert token_layers.cross_attention(*inputs, None, 2).shape == (batch, queries, 32)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("blocked", [False, True])
def test_values_that_are_no_numbers_spoil_all_rows_and_queries_their_own(value, blocked):
    attend = torch.ones(1, 1, 5, 600, dtype=torch.bool)
    attend[..., 300] = not blocked  # PyTorch multiplies a blocked value with 0, which is not enough
    query, keys, values = attention_inputs(1, 5, 600, 32)
    query[0, 2, 3] = value
    found = token_layers.cross_attention(query, keys, values, attend, 2)[0]
    assert found[2, :16].isnan().all()
    assert found[[0, 1, 3, 4]].isfinite().all()
    query, keys, values = attention_inputs(1, 5, 600, 32)
    values[0, 300, 3] = value
    found = token_layers.cross_attention(query, keys, values, attend, 2)[0]
    wanted = attention_in_float64(query, keys, values, attend, 2)[0]
    assert torch.equal(found.isnan(), wanted.isnan())


# ---------------------------------------------------------------- windows

# Less than a window, a window, multiples of it, and neither; of windows of 3, 7 and 12.
MAPS = {
    3: [(1, 1), (2, 2), (3, 3), (6, 9), (7, 4), (1, 10)],
    7: [(3, 5), (7, 7), (14, 21), (10, 15)],
    12: [(5, 5), (12, 24), (25, 13)],
}


def block(size, shift, depth, heads=2, **options):
    torch.manual_seed(0)
    block = SwinTransformerBlock(
        depth * heads, heads, window_size=size, shift_size=shift, mlp_ratio=2.0, **options
    ).eval()
    for parameter in block.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    block.attn.relative_position_bias_table.mul_(5)
    return block


def mask_of(block, height, width, dtype=torch.float32):
    size = block.window_size
    sides = -(-height // size), -(-width // size)
    return shifted_window_mask(*sides, size, block.shift_size, dtype=dtype, device="cpu")


def in_windows(block, x):
    """``x + attention`` in float64 as modules do it, and in the kernel."""
    attn = block.attn
    exact, mask = in_float64(block), mask_of(block, *x.shape[1:3], dtype=torch.float64)
    with use_implementation("reference"):
        wanted = x.double() + exact._window_attention(exact.norm1(x.double()), mask)
    separation = mask_of(block, 2 * block.window_size, 2 * block.window_size)
    parts = block.norm1, attn.qkv, attn.proj, attn.position_bias(), separation
    found = token_layers.window_attention(
        x, *parts, window_size=block.window_size, shift=block.shift_size, scale=attn.scale
    )
    return found, wanted


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("depth", [16, 48])
def test_windows(size, shifted, depth):
    one = block(size, size // 2 * shifted, depth)
    for height, width in MAPS[size]:
        for batch in (1, 2):
            found, wanted = in_windows(one, randn(batch, height, width, 2 * depth))
            assert difference(found, wanted) < 1e-6


@pytest.mark.parametrize("shift", [1, 2, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_windows_with_any_shift_with_and_without_bias(shift, bias):
    one = block(7, shift, 16, heads=3, qkv_bias=bias, qk_scale=0.3)
    assert difference(*in_windows(one, randn(2, 9, 23, 48))) < 1e-6


@pytest.mark.parametrize("count", [1, 2, 4])
def test_windows_of_maps_that_lie_anyhow_with_any_threads(count):
    one = block(7, 3, 16)
    with threads(count):
        assert difference(*in_windows(one, randn(2, 32, 40, 33).permute(0, 2, 3, 1))) < 1e-6
        assert difference(*in_windows(one, randn(1, 15, 40, 32).expand(3, -1, -1, -1))) < 1e-6


def test_windows_without_packed_weights(monkeypatch):
    blas = torch_blas()
    without = type(blas)(blas[0], None, None, None)
    monkeypatch.setattr(token_layers, "torch_blas", lambda: without)
    assert difference(*in_windows(block(7, 3, 16), randn(2, 30, 30, 32))) < 1e-6


@pytest.mark.parametrize("shape", [(0, 7, 7), (1, 0, 7), (2, 5, 0)])
def test_windows_of_no_tokens(shape):
    one = block(3, 1, 16)
    separation = mask_of(one, 6, 6)
    parts = one.norm1, one.attn.qkv, one.attn.proj, one.attn.position_bias(), separation
    found = token_layers.window_attention(
        torch.zeros(*shape, 32), *parts, window_size=3, shift=1, scale=1.0
    )
    assert found.shape == (*shape, 32)


@pytest.mark.parametrize("large", [1e2, 1e4])
def test_large_logits_in_windows(large):
    one = block(7, 3, 16)
    one.attn.qkv.weight[:32] *= large
    x = randn(1, 10, 12, 32)
    found, wanted = in_windows(one, x)
    readable = x + one._window_attention(one.norm1(x), mask_of(one, 10, 12))
    assert found.isfinite().all()
    assert (found - wanted).abs().max() < 3 * (readable - wanted).abs().max() + 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_spoils_its_window(value):
    one, x = block(7, 0, 16), randn(1, 10, 12, 32)
    x[0, 1, 8, 3] = value  # the second window of the first row
    found, wanted = in_windows(one, x)
    assert torch.equal(found.isnan(), wanted.isnan())
    assert found.isnan().any(-1)[0].nonzero().tolist() == [
        [y, x] for y in range(7) for x in range(7, 12)
    ]
    x = randn(1, 10, 12, 32)
    one.attn.relative_position_bias_table[5] = value
    found, wanted = in_windows(one, x)
    assert torch.equal(found.isnan(), wanted.isnan())


def test_the_kernels_norm_is_not_that_of_padding():
    """Zeros are added after the norm: with a bias of the norm it matters."""
    one = block(7, 3, 16)
    one.norm1.load_state_dict(norm(32).state_dict())
    one.attn.qkv.load_state_dict(linear(32, 96).state_dict())
    assert difference(*in_windows(one, randn(1, 8, 8, 32))) < 1e-6
