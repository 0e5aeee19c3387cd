"""Times multi-scale deformable attention against its reference; equal results come first.

On a GPU also against the published algorithm (where ``python build_ops.py --yardstick`` has built
it), and everywhere against the time in which memory could move the bytes that have to be moved.

``python -m mask2former.ops.benchmark [--device cuda] [--dtype bfloat16] [--threads 2]``
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2former.ops import ms_deform_attn, use_implementation
from mask2former.ops.libraries import MS_DEFORM_ATTN_YARDSTICK, MissingLibrary, load
from mask2former.ops.yardstick import (
    copy_bandwidth,
    least_bytes,
    published_ms_deform_attn,
    seconds_of,
)

# Levels of the pixel decoder at 800x1067 (strides 32, 16, 8), and of the quickstart's images.
LARGE = ((25, 34), (50, 67), (100, 134))
SMALL = ((4, 4), (8, 8), (16, 16))
KERNEL, REFERENCE, PUBLISHED = "kernel", "reference", "published algorithm"
# On a GPU steps take inputs in turn that are together larger than its caches.
_CACHE_BYTES, _MOST_COPIES = 256 * 2**20, 8
_IN_A_ROW = 10


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
    # The published algorithm / kernel: median, lowest, highest; None where it was not timed.
    published: tuple[float, float, float] | None = None
    # Seconds in which memory could move the least bytes; None where that was not asked.
    bound_seconds: float | None = None

    def __str__(self) -> str:
        text = (
            f"{self.name}: parity {self.worst_difference:.1e}, "
            f"kernel {self.kernel_seconds * 1e3:.3g} ms, "
            f"reference {self.reference_seconds * 1e3:.3g} ms, "
            f"{self.ratio:.1f}x ({self.lowest_ratio:.1f} to {self.highest_ratio:.1f})"
        )
        if self.published:
            text += ", {:.2f}x ({:.2f} to {:.2f}) the published algorithm".format(*self.published)
        if self.bound_seconds:
            share = self.bound_seconds / self.kernel_seconds
            text += f", {share:.2f} of memory's speed ({self.bound_seconds * 1e3:.3g} ms)"
        return text


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
    name: str,
    arguments: list,
    backward: bool,
    rounds: int = 7,
    tolerance: float | None = None,
    bandwidth: float | None = None,
) -> Result:
    """Parity, then alternating timings, of the compiled kernel, the reference and the yardstick.

    Args:
        arguments: of :func:`ms_deform_attn`.
        backward: time the backward pass, too.
        tolerance: largest difference allowed, relative to the largest number of each tensor;
            by default 1e-5, or 2e-2 for 16-bit values.
        bandwidth: bytes a second that the device's memory moves, for the bound.

    Raises:
        RuntimeError: if results differ, or there is no kernel: then no speed is given.
    """
    value = arguments[0]
    wide = value.dtype in (torch.float32, torch.float64)
    variants = [KERNEL, REFERENCE, *([PUBLISHED] if _has_published(value) else [])]
    leaves = _leaves(arguments, backward)
    results = {variant: _run(variant, leaves) for variant in variants}
    difference = max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-12)).item()
        for variant in variants
        for a, b in zip(results[variant], results[REFERENCE])
    )
    if not difference <= (tolerance or (1e-5 if wide else 2e-2)):
        raise RuntimeError(f"{name}: kernel and reference differ by {difference:.1e}; not timed")
    del results

    inputs = itertools.cycle(_copies(leaves, backward))
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant, seconds in times.items():
            repeats = 1 if variant == REFERENCE else 3
            step = _step(variant, inputs)
            seconds.append(_seconds(step, value.device, repeats))
    ratios = {
        variant: [slow / fast for slow, fast in zip(times[variant], times[KERNEL])]
        for variant in variants[1:]
    }
    spreads = {v: (statistics.median(r), min(r), max(r)) for v, r in ratios.items()}
    return Result(
        name,
        statistics.median(times[KERNEL]),
        statistics.median(times[REFERENCE]),
        *spreads[REFERENCE],
        difference,
        published=spreads.get(PUBLISHED),
        bound_seconds=least_bytes(arguments, backward) / bandwidth if bandwidth else None,
    )


def _has_published(value: Tensor) -> bool:
    if value.device.type != "cuda" or value.dtype != torch.float32:
        return False
    try:
        load("cuda", MS_DEFORM_ATTN_YARDSTICK)
    except MissingLibrary as error:
        print(f"not compared with the published algorithm: {error}")
        return False
    return True


def _leaves(arguments: list, backward: bool) -> list:
    return [
        item.detach().requires_grad_(backward) if isinstance(item, Tensor) else item
        for item in arguments
    ]


def _copies(leaves: list, backward: bool) -> list[list]:
    """On a GPU enough copies that none is still in a cache when its turn comes."""
    tensors = [item for item in leaves if isinstance(item, Tensor)]
    if tensors[0].device.type != "cuda":
        return [leaves]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    count = min(_MOST_COPIES, 1 + _CACHE_BYTES // max(1, size))
    return [
        _leaves([t.clone() if isinstance(t, Tensor) else t for t in leaves], backward)
        for _ in range(count)
    ]


def _step(variant: str, inputs: itertools.cycle) -> Callable[[], object]:
    return lambda: _run(variant, next(inputs))


def _run(variant: str, leaves: list) -> list[Tensor]:
    """The output, and gradients of all tensors that want one."""
    if variant == PUBLISHED:
        output = published_ms_deform_attn(*leaves)
    else:
        with use_implementation(variant):
            output = ms_deform_attn(*leaves)
    tensors = [item for item in leaves if isinstance(item, Tensor)]
    if not tensors[0].requires_grad:
        return [output]
    return [output, *torch.autograd.grad(output, tensors, torch.ones_like(output))]


def _seconds(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Time of a step: on a GPU the median of runs between events, else the mean."""
    step()
    if device.type == "cuda":
        # Several in a row: the GPU is not to wait for the host to launch the next one.
        return statistics.median(
            seconds_of(lambda: [step() for _ in range(_IN_A_ROW)], device) / _IN_A_ROW
            for _ in range(max(5, repeats))
        )
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def run(
    device: str = "cpu", dtype: torch.dtype = torch.float32, batch: int = 1, rounds: int = 7
) -> list[Result]:
    """The large and the small encoder, forward, and forward with backward."""
    bandwidth = copy_bandwidth(device)
    print(f"memory: {bandwidth / 1e9:.0f} GB/s in a large copy (read and written)", flush=True)
    results = []
    for size, shapes, heads, depth in (("large", LARGE, 8, 32), ("small", SMALL, 8, 16)):
        arguments = encoder_inputs(shapes, batch, heads, depth, dtype=dtype, device=device)
        for backward in (False, True):
            name = f"{size} {'forward + backward' if backward else 'forward'}"
            results.append(compare(name, arguments, backward, rounds, bandwidth=bandwidth))
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
