"""Times the paths of neighbourhood attention against its reference; equal results come first.

``python -m mask2former.ops.neighborhood_attention_benchmark [--height 256 --width 448]
[--device cuda] [--dtype bfloat16] [--threads 2] [--paths kernel tiled flex]``

The maps are those of DiNAT-L (kernel size 11) for an image of that size, each without dilation and
with the largest that fits. The reference copies 121 keys and values a pixel: 0.7 GB each at the
default size, 15 times that at 800 x 1344.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch

from mask2former.ops import neighborhood_attention_2d
from mask2former.ops.benchmark import Result, _seconds

KERNEL_SIZE = 11
HEADS = (6, 12, 24, 48)  # of DiNAT-L's stages, at strides 4, 8, 16 and 32
DEPTH = 32


def stage_inputs(
    heads: int, height: int, width: int, dtype: torch.dtype, device: str
) -> list[torch.Tensor]:
    """Query, key and value as a linear layer gives them, ``[1, heads, H, W, 32]``, and a bias."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, height, width, 3, heads, DEPTH, generator=generator)
    side = 2 * KERNEL_SIZE - 1
    rpb = torch.randn(heads, side, side, generator=generator).to(device)
    return [*qkv.to(device, dtype).permute(3, 0, 4, 1, 2, 5), rpb]


def compare(
    name: str,
    path: str,
    tensors: Sequence[torch.Tensor],
    dilation: int,
    backward: bool,
    rounds: int,
) -> Result:
    """Parity, then alternating timings, of a path and the reference.

    Raises:
        RuntimeError: if results differ: then no speed is given.
    """
    leaves = [tensor.detach().requires_grad_(backward) for tensor in tensors]

    def step(which: str) -> list[torch.Tensor]:
        output = neighborhood_attention_2d(
            *leaves, KERNEL_SIZE, dilation, scale=DEPTH**-0.5, path=which
        )
        if not backward:
            return [output]
        return [output, *torch.autograd.grad(output, leaves, torch.ones_like(output))]

    difference = max(
        ((a.double() - b.double()).norm() / b.double().norm()).item()
        for a, b in zip(step(path), step("reference"))
    )
    wide = tensors[0].dtype in (torch.float32, torch.float64)
    if not difference <= (1e-5 if wide else 2e-2):
        raise RuntimeError(f"{name}: {path} and reference differ by {difference:.1e}; not timed")
    times: dict[str, list[float]] = {path: [], "reference": []}
    for _ in range(rounds):
        for which, seconds in times.items():
            seconds.append(_seconds(lambda which=which: step(which), tensors[0].device, 1))
    ratios = [slow / fast for slow, fast in zip(times["reference"], times[path])]
    return Result(
        name,
        statistics.median(times[path]),
        statistics.median(times["reference"]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        difference,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--paths", nargs="+", default=["kernel", "tiled"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.device}, {options.dtype}, {options.threads} threads, "
        f"image {options.height} x {options.width}"
    )
    for stage, heads in enumerate(HEADS):
        height, width = (-(-side // 2 ** (stage + 2)) for side in (options.height, options.width))
        if min(height, width) < KERNEL_SIZE:
            continue  # DiNAT pads such maps
        tensors = stage_inputs(heads, height, width, getattr(torch, options.dtype), options.device)
        for dilation in sorted({1, min(height, width) // KERNEL_SIZE}):
            for backward in (False, True):
                name = f"{height} x {width}, {heads} heads, dilation {dilation}, forward"
                name += " + backward" if backward else ""
                for path in options.paths:
                    if path == "flex" and backward and options.device == "cpu":
                        continue  # PyTorch has none
                    result = compare(name, path, tensors, dilation, backward, options.rounds)
                    print(f"{path}: {result}".replace("kernel ", f"{path} ", 1), flush=True)


if __name__ == "__main__":
    main()
