"""The perceptron of transformer layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.modeling.transformer_decoder.feed_forward import activation_function, feed_forward


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize("shape", [(2, 5, 8), (3, 8), (2, 0, 8)])
def test_values_and_gradients_are_those_of_the_layers_in_a_row(name, shape):
    linear1, linear2 = nn.Linear(8, 16).double(), nn.Linear(16, 6).double()
    x = torch.randn(shape, dtype=torch.float64)
    results = []
    for function in (
        lambda x: feed_forward(x, linear1, activation_function(name), nn.Identity(), linear2),
        lambda x: linear2(getattr(F, name)(linear1(x))),
    ):
        tokens = x.clone().requires_grad_()
        output = function(tokens)
        parameters = [*linear1.parameters(), *linear2.parameters()]
        results.append([output, *torch.autograd.grad(output.cos().sum(), [tokens, *parameters])])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected)


def test_an_activation_in_place_makes_autograd_copy_nothing():
    x = torch.randn(2, 5, 8, requires_grad=True)
    parts = nn.Linear(8, 16), torch.relu_, nn.Identity(), nn.Linear(16, 8)
    assert "CopySlices" not in names_of_steps(feed_forward(x, *parts))
    assert "CopySlices" in names_of_steps(parts[3](torch.relu_(parts[0](x))))


def names_of_steps(tensor: torch.Tensor) -> set[str]:
    """Of its backward graph."""
    names, waiting = set(), [tensor.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None:
            names.add(type(step).__name__)
            waiting += [before for before, _ in step.next_functions]
    return names
