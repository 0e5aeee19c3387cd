"""Attention with a learned bias, and its way around PyTorch's slow path on a CPU."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.backbone.swin_attention import WindowAttention, biased_attention
from mask2former.ops import use_implementation


@pytest.mark.parametrize("windows", [1, 6])
def test_values_and_gradients_are_those_of_scaled_dot_product_attention(windows):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v = (random(6, 2, 9, 4) for _ in range(3))
    bias = random(windows, 2, 9, 9)
    inputs = (q, k, v, bias)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3)
    output = biased_attention(*inputs, dropout=0.0, scale=0.3)
    torch.testing.assert_close(output, expected)
    wanted = torch.autograd.grad(expected.cos().sum(), inputs)
    for gradient, other in zip(torch.autograd.grad(output.cos().sum(), inputs), wanted):
        torch.testing.assert_close(gradient, other)


def test_dropout_drops_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    q, k, v = (torch.randn(500, 1, 8, 4) for _ in range(3))
    bias = torch.zeros(1, 1, 8, 8, requires_grad=True)
    whole = biased_attention(q, k, v, bias, dropout=0.0, scale=0.5)
    dropped = biased_attention(q, k, v, bias, dropout=0.5, scale=0.5)
    assert (dropped - whole).abs().mean() > 0.1
    assert (dropped - whole).mean().abs() < 0.02


def test_the_reference_is_pytorchs(monkeypatch):
    q, k, v = (torch.randn(2, 1, 9, 4) for _ in range(3))
    bias = torch.zeros(1, 1, 9, 9, requires_grad=True)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *_, **__: "PyTorch's")
    assert isinstance(biased_attention(q, k, v, bias, 0.0, 0.5), torch.Tensor)
    with use_implementation("reference"):
        assert biased_attention(q, k, v, bias, 0.0, 0.5) == "PyTorch's"
    with torch.no_grad():
        assert biased_attention(q, k, v, bias, 0.0, 0.5) == "PyTorch's"


def test_an_empty_batch_of_masked_windows_is_empty():
    attention = WindowAttention(8, (2, 2), 2)
    x = torch.zeros(0, 4, 8, requires_grad=True)
    output = attention(x, torch.zeros(3, 4, 4))
    output.sum().backward()
    assert output.shape == x.grad.shape == (0, 4, 8)


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated; Python ints in a trace
def test_a_trace_made_while_gradients_are_on_passes_its_check():
    attention, x = WindowAttention(8, (2, 2), 2), torch.randn(3, 4, 8)
    traced = torch.jit.trace(attention, x)
    torch.testing.assert_close(traced(x), attention(x))
