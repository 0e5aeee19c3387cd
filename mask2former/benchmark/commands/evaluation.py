"""Memory and time of the evaluators, against detectron2's.

Each evaluator gets the synthetic predictions of many images (480x640; 100 instance masks an image
for AP, 16 classes for semantics and panoptics) in a process of its own. What is reported is how
much resident memory a thousand images add (in the second half), the processor time of an image and
of the final evaluation, for how long an image kept the loop of predictions waiting, and the peak of
all. Ours counts in threads beside the network, so waiting means something only with --beside, where
convolutions stand in for the network; the time these take alone and beside the evaluator is printed
then. Both must give the same metrics, or no figure is
printed. detectron2's panoptic evaluator is left out: it needs panopticapi.

  a few minutes:
    python tools/benchmark.py evaluation

  what evaluation costs a loop whose network takes 200 ms an image:
    python tools/benchmark.py evaluation --images 60 --beside 200

  one evaluator, as many images as COCO's validation set has:
    python tools/benchmark.py evaluation --kind instances --images 5000
"""

import argparse
import sys

KINDS = ("instances", "semantic", "panoptic")
_HEAD = (
    "evaluator",
    "of",
    "MiB/1000 images",
    "CPU ms/image",
    "loop ms/image",
    "evaluate CPU s",
    "peak MiB",
)
_ROW = "{:<11} {:<12} {:>15} {:>13} {:>14} {:>15} {:>9}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py evaluation``."""
    parser.add_argument("--kind", nargs="+", choices=KINDS, help="evaluators (all)")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="images (1000)")
    parser.add_argument(
        "--beside", type=int, default=0, metavar="MS", help="of a network stand-in, an image (0)"
    )
    parser.add_argument(
        "--course", action="store_true", help="print the memory after every tenth of the images"
    )


def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 if two evaluators differ, 2 where memory cannot be read."""
    if not sys.platform.startswith("linux"):
        print("error: resident memory is read from /proc, which only Linux has", file=sys.stderr)
        return 2
    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.evaluators.memory import DETECTRON2, OURS, measure
    from mask2former.benchmark.machine import describe, headline

    if args.images < 20:
        print("error: --images must be 20 or more", file=sys.stderr)
        return 2
    facts = describe()
    print(headline(facts))
    print(_ROW.format(*_HEAD), flush=True)
    figures, status = [], 0
    for kind in args.kind or KINDS:
        providers = (OURS,) if kind == "panoptic" else (OURS, DETECTRON2)
        courses = {
            provider: measure(kind, provider, args.images, args.beside) for provider in providers
        }
        if len({_rounded(course.results) for course in courses.values()}) > 1:
            print(f"{kind}: the metrics differ, no figures", file=sys.stderr)
            status = 1
            continue
        for provider, course in courses.items():
            per_image, final = course.seconds
            print(
                _ROW.format(
                    kind,
                    provider,
                    f"{course.per_thousand:.1f}",
                    f"{1000 * per_image - sum(course.network[1:]):.1f}",
                    f"{course.waited:.1f}",
                    f"{final:.1f}",
                    f"{course.peak:.0f}",
                ),
                flush=True,
            )
            if course.network:
                alone, beside = course.network
                print(f"  network {alone:.0f} ms an image alone, {beside:.0f} ms beside it")
            if args.course:
                points = zip(course.images, course.resident)
                print("  " + ", ".join(f"{n}: {memory:.0f}" for n, memory in points) + " MiB")
            figures.append({"kind": kind, "provider": provider, **vars(course)})
    write_json(args.json, {"machine": facts, "images": args.images, "figures": figures})
    return status


def _rounded(results: dict) -> str:
    """The metrics as text, so that NaN equals NaN, to what two packages may differ by."""
    flat = {f"{t}/{m}": round(float(v), 6) for t, ms in results.items() for m, v in ms.items()}
    return str(sorted(flat.items()))
