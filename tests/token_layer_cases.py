"""Parts of transformer layers with random weights, for the tests of token layers."""

import copy
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, no parameter at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5
            offset = 0.0 if parameter.dim() > 1 else 0.2
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + offset)
    return module.eval()


def linear(inputs: int, outputs: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    return randomised(nn.Linear(inputs, outputs, bias=bias), seed)


def norm(width: int, *, eps: float = 1e-5, seed: int = 0) -> nn.LayerNorm:
    return randomised(nn.LayerNorm(width, eps=eps), seed)


def in_float64(module: nn.Module) -> nn.Module:
    """A copy, whose results are the truth."""
    return copy.deepcopy(module).double()


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest, as a share of the largest number."""
    assert actual.shape == expected.shape
    if not expected.numel():
        return 0.0
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
