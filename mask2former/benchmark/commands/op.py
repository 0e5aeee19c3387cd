"""Multi-scale deformable and neighbourhood attention: compiled kernels against the references.

Sizes are those of a network; results (with --backward also gradients) are compared first, and
where they differ nothing is timed.

  deformable attention as in the pixel decoder at 800x1067, and at a small image:
    python tools/benchmark.py op

  neighbourhood attention with the maps of DiNAT-L for an image of 128x224:
    python tools/benchmark.py op --op neighborhood

  on a GPU in bfloat16:
    python tools/benchmark.py op --device cuda --dtype bfloat16 --images 4
"""

import argparse
import os

from mask2former.benchmark.options import positive, shielded

OPS = ("deformable", "neighborhood")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py op``."""
    add = parser.add_argument
    add("--op", choices=OPS, default=OPS[0], help="which (%(default)s)")
    add("--device", default="cpu", help="cpu or cuda (cpu)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    add("--images", type=positive, default=1, help="in a batch, deformable attention only (1)")
    add("--size", type=positive, nargs=2, metavar=("H", "W"), default=(128, 224),
        help="of the image, neighbourhood attention only (128 224)")  # fmt: skip
    add("--threads", type=positive, default=min(2, os.cpu_count() or 1), help="of torch (2)")
    add("--rounds", type=positive, default=5, help="rounds that count (5)")


@shielded
def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 without parity or without a kernel."""
    import dataclasses

    import torch

    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.machine import describe, headline
    from mask2former.benchmark.networks.parity import ParityError
    from mask2former.engine.errors import ConfigError
    from mask2former.ops.libraries import (
        MS_DEFORM_ATTN,
        NEIGHBORHOOD_ATTENTION,
        MissingLibrary,
        load,
    )

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {args.device}: torch finds no GPU; leave it out for cpu")
    try:
        op = MS_DEFORM_ATTN if args.op == "deformable" else NEIGHBORHOOD_ATTENTION
        load(args.device.partition(":")[0], op)
    except MissingLibrary as error:
        raise ConfigError(f"there is no kernel to measure: {error}") from error
    torch.set_num_threads(args.threads)
    facts = describe()
    print(headline(facts))
    results = []
    try:
        for result in _deformable(args) if args.op == "deformable" else _neighborhood(args):
            print(f"  {result}", flush=True)
            results.append(dataclasses.asdict(result))
    except RuntimeError as error:
        if "not timed" not in str(error):
            raise
        raise ParityError(str(error)) from error
    write_json(args.json, {"machine": facts, "results": results})
    return 0


def _deformable(args: argparse.Namespace):
    import torch

    from mask2former.ops.benchmark import run as run_deformable

    yield from run_deformable(args.device, getattr(torch, args.dtype), args.images, args.rounds)


def _neighborhood(args: argparse.Namespace):
    import torch

    from mask2former.ops import neighborhood_attention_benchmark as benchmark

    for stage, heads in enumerate(benchmark.HEADS):
        height, width = (-(-side // 2 ** (stage + 2)) for side in args.size)
        if min(height, width) < benchmark.KERNEL_SIZE:
            continue
        tensors = benchmark.stage_inputs(
            heads, height, width, getattr(torch, args.dtype), args.device
        )
        for backward in (False, True):
            name = f"{height}x{width}, {heads} heads, forward" + " + backward" * backward
            yield benchmark.compare(name, "kernel", tensors, 1, backward, args.rounds)
