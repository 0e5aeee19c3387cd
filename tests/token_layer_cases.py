"""Parts of transformer layers with random weights, for the tests of token layers."""

import copy
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mask2former.modeling.backbone.swin_blocks import SwinTransformerBlock, shifted_window_mask
from mask2former.modeling.pixel_decoder.msdeformattn import (
    MSDeformAttnTransformerEncoderLayer,
    cell_centres,
)
from mask2former.modeling.transformer_decoder.layers import CrossAttentionLayer
from mask2former.ops import use_implementation

LEVELS = ((6, 5), (3, 2))


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


def readable(module, inputs):
    with torch.no_grad(), use_implementation("reference"):
        return module(*inputs)


# Modules and their inputs; calls of kernels in one of the module.


def swin():
    block = SwinTransformerBlock(32, 2, window_size=7, shift_size=3, drop=0.3, drop_path=0.3)
    mask = shifted_window_mask(2, 2, 7, 3, dtype=torch.float32, device="cpu")
    return block, (randn(2, 9, 12, 32), mask)


def encoder():
    layer = MSDeformAttnTransformerEncoderLayer(64, 96, dropout=0.3, n_levels=2, n_heads=4)
    points = cell_centres(LEVELS, "cpu")[None, :, None].expand(2, -1, 2, -1)
    return layer, (randn(2, 36, 64), randn(1, 36, 64, seed=1), points, LEVELS)


def attention():
    layer, attend = CrossAttentionLayer(32, 2, dropout=0.3), randn(2, 1, 5, 300, seed=3) > 0
    return Keywords(layer), (
        *(randn(2, 5, 32), randn(2, 300, 32, seed=1), randn(2, 300, 32, seed=2)),
        *(attend, randn(5, 32, seed=4)),
    )


class Keywords(nn.Module):
    """Calls a cross attention layer without keywords."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, queries, keys, values, attend, query_pos):
        return self.layer(queries, keys, values, attend=attend, query_pos=query_pos)


CASES = {"swin": swin, "encoder": encoder, "attention": attention}
CALLS = {"swin": 2, "encoder": 2, "attention": 1}
