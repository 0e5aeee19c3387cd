"""Inputs for the tests of neighbourhood attention."""

from dataclasses import dataclass, replace

import torch

from mask2former.ops import neighborhood_attention_2d

NAMES = ("output", "query", "key", "value", "rpb")
TIGHT = {"rtol": 1e-10, "atol": 1e-10}

# batch, heads, height, width, depth, kernel, dilation
SHAPES = {
    "one window": (1, 1, 3, 3, 4, 3, 1),
    "odd sides": (2, 2, 9, 7, 5, 3, 1),
    "classes of two lengths": (1, 2, 13, 17, 8, 5, 2),
    "window as large as the class": (1, 2, 14, 15, 4, 7, 2),
    "wide map": (1, 2, 9, 40, 16, 3, 3),
    "several tiles": (1, 2, 40, 35, 8, 11, 1),
    "large dilation": (1, 1, 31, 34, 33, 3, 10),
    "kernel 1": (1, 2, 5, 4, 3, 1, 2),
    "no batch": (0, 2, 9, 7, 4, 3, 1),
}


@dataclass
class Inputs:
    """Arguments of one call."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    rpb: torch.Tensor | None
    kernel_size: int
    dilation: int
    scale: float = 0.3

    @property
    def maps(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.query, self.key, self.value

    def run(self, path: str | None = None, **options) -> torch.Tensor:
        where = (self.rpb, self.kernel_size, self.dilation)
        return neighborhood_attention_2d(*self.maps, *where, scale=self.scale, path=path, **options)

    def gradient(self, like: torch.Tensor) -> torch.Tensor:
        """A fixed gradient of the output."""
        steps = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
        return (steps * 0.7).sin().view(like.shape).to(like.dtype)

    def run_with_gradients(self, path: str | None = None) -> list[torch.Tensor]:
        """Output, and the gradients of query, key, value and bias (if any)."""
        leaves = [t.detach().requires_grad_() for t in (*self.maps, self.rpb) if t is not None]
        rpb = None if self.rpb is None else leaves[3]
        output = replace(self, query=leaves[0], key=leaves[1], value=leaves[2], rpb=rpb).run(path)
        gradient = self.gradient(output)
        grads = torch.autograd.grad(output, leaves, gradient, materialize_grads=True)
        return [output.detach(), *grads]

    def to(self, *args) -> "Inputs":
        rpb = None if self.rpb is None else self.rpb.to(*args)
        query, key, value = (tensor.to(*args) for tensor in self.maps)
        return replace(self, query=query, key=key, value=value, rpb=rpb)


def make_inputs(
    batch=1, heads=2, height=9, width=8, depth=6, kernel_size=3, dilation=2, bias=True, seed=0
) -> Inputs:
    """float64 inputs."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    maps = [random(batch, heads, height, width, depth) for _ in range(3)]
    side = 2 * kernel_size - 1
    return Inputs(*maps, random(heads, side, side) if bias else None, kernel_size, dilation)


def assert_all_close(actual, expected, **tolerance):
    assert len(actual) == len(expected)
    for name, a, b in zip(NAMES, actual, expected):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"{n}: {m}", **tolerance)
