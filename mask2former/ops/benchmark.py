"""Times multi-scale deformable attention against its reference; equal results come first.

``python -m mask2former.ops.benchmark [--device cuda] [--dtype bfloat16] [--threads 2]``
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2former.ops import ms_deform_attn, use_implementation

# Levels of the pixel decoder at 800x1067 (strides 32, 16, 8), and of the quickstart's images.
LARGE = ((25, 34), (50, 67), (100, 134))
SMALL = ((4, 4), (8, 8), (16, 16))


@dataclass(frozen=True)
class Result:
    """Seconds are medians over rounds; ratios are reference / kernel, round by round."""

    name: str
    kernel_seconds: float
    reference_seconds: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float
    worst_difference: float  # of output and gradients, relative to the largest number of each

    def __str__(self) -> str:
        return (
            f"{self.name}: parity {self.worst_difference:.1e}, "
            f"kernel {self.kernel_seconds * 1e3:.2f} ms, "
            f"reference {self.reference_seconds * 1e3:.2f} ms, "
            f"{self.ratio:.1f}x ({self.lowest_ratio:.1f} to {self.highest_ratio:.1f})"
        )


def encoder_inputs(
    shapes: Sequence[tuple[int, int]] = LARGE,
    batch: int = 1,
    heads: int = 8,
    depth: int = 32,
    points: int = 4,
    spread: float = 3.0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> list:
    """Arguments of :func:`ms_deform_attn` as in an encoder layer, where every pixel is a query.

    Args:
        spread: standard deviation of the sampling offsets, in pixels.
        dtype: of the values; locations and weights are float32, as under autocast.
    """
    generator = torch.Generator().manual_seed(0)
    centres = []
    for height, width in shapes:
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height,
            (torch.arange(width) + 0.5) / width,
            indexing="ij",
        )
        centres.append(torch.stack([x, y], -1).view(-1, 2))
    reference = torch.cat(centres)[None, :, None, None, None, :]
    positions, levels = reference.shape[1], len(shapes)
    samples = (batch, positions, heads, levels, points)
    sizes = torch.tensor([[width, height] for height, width in shapes])[:, None, :]
    locations = reference + torch.randn(*samples, 2, generator=generator) * spread / sizes
    attention = torch.rand(*samples, generator=generator).flatten(3).softmax(-1).view(samples)
    value = torch.randn(batch, positions, heads, depth, generator=generator).to(dtype)
    return [value.to(device), list(shapes), None, locations.to(device), attention.to(device)]


def compare(
    name: str, arguments: list, backward: bool, rounds: int = 7, tolerance: float | None = None
) -> Result:
    """Parity, then alternating timings, of the compiled kernel and the reference.

    Args:
        arguments: of :func:`ms_deform_attn`.
        backward: time the backward pass, too.
        tolerance: largest difference allowed, relative to the largest number of each tensor;
            by default 1e-5, or 2e-2 for 16-bit values.

    Raises:
        RuntimeError: if results differ, or there is no kernel: then no speed is given.
    """
    leaves = [
        item.detach().requires_grad_(backward) if isinstance(item, Tensor) else item
        for item in arguments
    ]
    tensors = [item for item in leaves if isinstance(item, Tensor)]
    wide = tensors[0].dtype in (torch.float32, torch.float64)

    def step() -> list[Tensor]:
        output = ms_deform_attn(*leaves)
        if not backward:
            return [output]
        return [output, *torch.autograd.grad(output, tensors, torch.ones_like(output))]

    results = {}
    for mode in ("kernel", "reference"):
        with use_implementation(mode):
            results[mode] = step()
    difference = max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-12)).item()
        for a, b in zip(results["kernel"], results["reference"])
    )
    if not difference <= (tolerance or (1e-5 if wide else 2e-2)):
        raise RuntimeError(f"{name}: kernel and reference differ by {difference:.1e}; not timed")

    times: dict[str, list[float]] = {"kernel": [], "reference": []}
    for _ in range(rounds):
        for mode, seconds in times.items():
            with use_implementation(mode):
                seconds.append(_seconds(step, tensors[0].device, 3 if mode == "kernel" else 1))
    ratios = [slow / fast for slow, fast in zip(times["reference"], times["kernel"])]
    return Result(
        name,
        statistics.median(times["kernel"]),
        statistics.median(times["reference"]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        difference,
    )


def _seconds(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Mean time of a step; on a GPU until it has finished."""
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def run(
    device: str = "cpu", dtype: torch.dtype = torch.float32, batch: int = 1, rounds: int = 7
) -> list[Result]:
    """The large and the small encoder, forward, and forward with backward."""
    results = []
    for size, shapes, heads, depth in (("large", LARGE, 8, 32), ("small", SMALL, 8, 16)):
        arguments = encoder_inputs(shapes, batch, heads, depth, dtype=dtype, device=device)
        for backward in (False, True):
            name = f"{size} {'forward + backward' if backward else 'forward'}"
            results.append(compare(name, arguments, backward, rounds))
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    print(
        f"torch {torch.__version__}, {options.device}, {options.dtype}, {options.threads} threads"
    )
    for result in run(options.device, dtype, options.batch, options.rounds):
        print(result, flush=True)


if __name__ == "__main__":
    main()
