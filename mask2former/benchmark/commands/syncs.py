"""How often the host waits for the GPU: a step of training, and inference with post-processing.

On a GPU: places at which PyTorch warns that it waits (torch.cuda.set_sync_debug_mode), and waiting
calls that the profiler saw. Without one, the same code runs on a device that is none, which counts
numbers read, copies to the host, sizes that depend on values, and blocking copies to the device.
A step is watched after two others, which fill caches. Counting changes nothing in the network.

  without a GPU, small:
    python tools/benchmark.py syncs --size 128 128

  on a GPU:
    python tools/benchmark.py syncs --device cuda --size 800 1344 --dtype bfloat16
"""

import argparse
import collections
import sys

from mask2former.benchmark.options import DTYPES, positive, shielded

SUBJECTS = ("inference", "training")
_R50 = "configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py syncs``."""
    add = parser.add_argument
    add("--config-file", metavar="FILE", default=_R50, help="of the model (R50, COCO panoptic)")
    add("--subject", nargs="+", choices=SUBJECTS, default=SUBJECTS, help="what is watched (both)")
    add("--device", default="cpu", help="cuda, or cpu for a device that is none (cpu)")
    add("--dtype", choices=DTYPES, default="float32", help="float32, or the type of autocast")
    add("--size", type=positive, nargs=2, metavar=("H", "W"), default=(256, 256), help="(256 256)")
    add("--images", type=positive, default=2, help="in a batch (2)")
    add("--most", type=positive, default=3, help="more than these give exit status 1 (3)")
    add("opts", nargs="*", metavar="KEY VALUE", help="config overrides")


@shielded
def run(args: argparse.Namespace) -> int:
    """Counts and prints; 1 if the host waits more often than ``--most`` says."""
    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.machine import describe, headline
    from mask2former.benchmark.networks.setting import Setting
    from mask2former.benchmark.syncs.counting import count

    facts = describe()
    print(headline(facts))
    setting = Setting(
        config_file=args.config_file,
        opts=tuple(args.opts),
        size=tuple(args.size),
        output=tuple(args.size),
        dtype=args.dtype,
        device=args.device,
        images=args.images,
    )
    how = "" if args.device.startswith("cuda") else " (counted on a device that is none)"
    results = {}
    for subject in args.subject:
        waits = count(subject, setting)
        print(f"{subject}: the host waits {waits.number} times{how}")
        for wait, times in collections.Counter(waits.places).items():
            print(f"  {times} x {wait.why}: {wait.where}")
        for name, times in waits.calls.items():
            print(f"  {times} x {name}")
        results[subject] = {"waits": waits.number, "calls": waits.calls, "places": waits.places}
    write_json(args.json, {"machine": facts, "synchronisations": results})
    too_many = [subject for subject, found in results.items() if found["waits"] > args.most]
    if too_many:
        print(f"more than {args.most}: {', '.join(too_many)}", file=sys.stderr)
    return 1 if too_many else 0
