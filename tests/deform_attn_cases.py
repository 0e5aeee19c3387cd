"""Inputs for the tests of multi-scale deformable attention."""

from dataclasses import dataclass

import torch
from parity_cases import arrays

from mask2former.ops import ms_deform_attn, use_implementation


@dataclass
class Inputs:
    """Arguments of one call."""

    value: torch.Tensor
    shapes: list[tuple[int, int]]
    locations: torch.Tensor
    attention: torch.Tensor

    def run(self, mode: str) -> torch.Tensor:
        with use_implementation(mode):
            return ms_deform_attn(self.value, self.shapes, None, self.locations, self.attention)

    def run_with_gradients(self, mode: str) -> tuple[torch.Tensor, ...]:
        """Output, and the gradients of value, locations and attention for a fixed gradient."""
        leaves = [t.detach().requires_grad_() for t in (self.value, self.locations, self.attention)]
        with use_implementation(mode):
            output = ms_deform_attn(leaves[0], self.shapes, None, *leaves[1:])
        steps = torch.arange(output.numel(), dtype=torch.float64, device=output.device)
        grad = (steps * 0.7).sin().view(output.shape).to(output.dtype)
        return output.detach(), *torch.autograd.grad(output, leaves, grad)

    def to(self, *args) -> "Inputs":
        tensors = [tensor.to(*args) for tensor in (self.value, self.locations, self.attention)]
        return Inputs(tensors[0], self.shapes, tensors[1], tensors[2])


def make_inputs(
    batch=2, queries=5, heads=2, depth=6, shapes=((4, 6), (2, 3)), points=3, seed=0, spread=1.4
) -> Inputs:
    """float64 inputs; locations reach ``spread`` maps wide, so that some fall outside."""
    generator = torch.Generator().manual_seed(seed)
    positions = sum(height * width for height, width in shapes)
    samples = (batch, queries, heads, len(shapes), points)
    value = torch.randn(batch, positions, heads, depth, generator=generator, dtype=torch.float64)
    locations = torch.rand(*samples, 2, generator=generator, dtype=torch.float64)
    attention = torch.rand(*samples, generator=generator, dtype=torch.float64)
    attention = attention / attention.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    return Inputs(value, list(shapes), (locations - 0.5) * spread + 0.5, attention)


def assert_all_close(actual, expected, **tolerance):
    for name, a, b in zip(("output", "value", "locations", "attention"), actual, expected):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


def recorded(name: str) -> dict[str, torch.Tensor]:
    """One case of the recorded parity numbers in ``deform_attn``."""
    prefix = name + "/"
    return {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in arrays("deform_attn", "cases").items()
        if key.startswith(prefix)
    }
