"""Post-processing, from logits to maps, against the published formula written out plainly.

Logits are like a trained model's. The plain code makes all masks at full size and loops over
queries; panoptic ids must agree at 99.99 % of the pixels, instances and semantic scores too, or
nothing is timed. Ours gives what evaluation and annotation read: labels and bool masks; the line
"float outputs" is ours with the published class scores and float masks. Beside it, the image
processor of transformers (if installed), which answers another question: it makes maps at 384x384
and resizes those, so it is timed but not compared.

  an image of 800x1067, maps of 480x640:
    python tools/benchmark.py post

  panoptic maps only, larger, single-threaded:
    python tools/benchmark.py post --tasks panoptic --size 1024 2048 --output-size 1024 2048 \\
        --threads 1
"""

import argparse
import os

from mask2former.benchmark.options import positive, shielded

TASKS = ("semantic", "panoptic", "instance")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py post``."""
    add = parser.add_argument
    add("--tasks", nargs="+", choices=TASKS, default=TASKS, help="outputs (all three)")
    add("--size", type=positive, nargs=2, metavar=("H", "W"), default=(800, 1067), help="of input")
    add("--output-size", type=positive, nargs=2, metavar=("H", "W"), default=(480, 640))
    add("--queries", type=positive, default=100)
    add("--classes", type=positive, default=133)
    add("--device", default="cpu", help="cpu or cuda (cpu)")
    add("--threads", type=positive, default=min(2, os.cpu_count() or 1), help="of torch (2)")
    add("--rounds", type=positive, default=7, help="rounds that count (7)")


@shielded
def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 without parity."""
    import torch

    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.machine import describe, headline
    from mask2former.benchmark.networks import post
    from mask2former.benchmark.networks.reporting import in_words
    from mask2former.benchmark.timing import Spread, alternate

    torch.set_num_threads(args.threads)
    facts = describe()
    print(headline(facts))
    subject = post.PostProcessing(
        args.tasks, args.size, args.output_size, args.queries, args.classes, args.device
    )
    found = subject.compare()
    print("agreement: " + ", ".join(f"{name} {value:.6f}" for name, value in found.items()))
    variants = {"mask2former": subject.ours, "plain": subject.plain}
    if set(args.tasks) - {"panoptic"}:
        variants["float outputs"] = subject.scores
    theirs = post.in_transformers(subject)
    if theirs is not None:
        variants["transformers"] = theirs
    measured = alternate(variants, rounds=args.rounds, warmups=2)
    ratios = {}
    for name in variants:
        line = f"  {name:<14} {Spread.of(measured.seconds[name]).median * 1e3:9.1f} ms"
        if name != "mask2former":
            ratio = measured.ratio(name, "mask2former")
            ratios[name] = ratio.as_dict()
            line += f"   ours is {in_words(ratio)} as fast"
        print(line)
    figures = {"tasks": args.tasks, "agreement": found, "ratios": ratios}
    write_json(args.json, {"machine": facts, **figures, "seconds": measured.seconds})
    return 0
