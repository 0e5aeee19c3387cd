"""Softmax over short rows: PyTorch's values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.ops import short_softmax, use_implementation


@pytest.mark.parametrize("entries", [1, 4, 12, 15, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_softmax(entries, dtype):
    generator = torch.Generator().manual_seed(entries)
    x = 20 * torch.randn(2, 5, 3, entries, generator=generator, dtype=dtype)
    x[0, 0] += 1e4  # would overflow without the largest entry taken off
    x[0, 1, 0, 1:] = -torch.inf
    grad = torch.randn(x.shape, generator=generator, dtype=dtype)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    result, expected = short_softmax(ours), F.softmax(theirs, -1)
    torch.testing.assert_close(result, expected)
    result.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradients_are_the_slopes_also_twice():
    x = torch.randn(3, 4, 12, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(short_softmax, x)
    torch.autograd.gradgradcheck(short_softmax, x)


def test_a_row_that_is_not_a_number_stays_with_itself():
    x = torch.zeros(2, 12)
    x[0, 3] = torch.nan
    result = short_softmax(x)
    assert result[0].isnan().all()
    torch.testing.assert_close(result[1], torch.full((12,), 1 / 12))


def test_no_rows_and_the_reference():
    assert short_softmax(torch.zeros(2, 0, 12)).shape == (2, 0, 12)
    x = torch.randn(5, 12)
    with use_implementation("reference"):
        assert torch.equal(short_softmax(x), F.softmax(x, -1))


def test_it_compiles_as_one_graph():
    x = torch.randn(5, 12, requires_grad=True)
    compiled = torch.compile(short_softmax, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), F.softmax(x, -1))
