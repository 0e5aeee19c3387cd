"""A training step: forward, criterion and backward, against a peer.

The same random weights, images and ground truth in our model and in the peer, alternating in one
process. With the same random points for both, the total losses (over all layers) and the norms of
all gradients are compared first; where they differ, nothing is timed. (Points that are chosen by
uncertainty may tie: with them the losses are compared less strictly.) Batch norms keep their
statistics. The optimizer's step is not part of it.

  against Hugging Face's transformers, 2 images of 512x512 with 12 objects each:
    python tools/benchmark.py train \\
        --config-file configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml

  against our own model with the readable ops, with peak memory:
    python tools/benchmark.py train --peer reference --memory --config-file CONFIG

  pixel decoder, transformer decoder and criterion alone, with given features:
    python tools/benchmark.py train --heads-only --size 1024 960 --images 1 --config-file CONFIG

  a small step, quickly:
    python tools/benchmark.py train --size 256 256 --images 1 --rounds 3 --config-file CONFIG
"""

import argparse

from mask2former.benchmark.options import add_network_options, positive, setting_of, shielded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py train``."""
    add_network_options(parser, rounds=3, size=(512, 512))
    parser.set_defaults(images=2)
    parser.add_argument("--objects", type=positive, default=12, help="in an image (12)")
    parser.add_argument(
        "--heads-only", action="store_true", help="without the backbone, whose features are given"
    )


@shielded
def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 without parity, 2 for what users can mend."""
    import dataclasses

    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.networks import training
    from mask2former.benchmark.networks.building import build_network
    from mask2former.benchmark.networks.reporting import memory_lines, timing_lines
    from mask2former.benchmark.networks.setting import FLOAT32

    setting, facts = setting_of(args, tuple(args.size))
    setting = dataclasses.replace(setting, objects=args.objects, heads_only=args.heads_only)
    plain = dataclasses.replace(setting, compiled=False)
    exact = dataclasses.replace(plain, dtype=FLOAT32)
    network = build_network(setting.config())
    subjects = {training.OURS: training.make(training.OURS, setting, network)}
    found: dict[str, float] = {}
    if args.peer == "none":
        print("parity: no peer, nothing to compare with")
    else:
        # In 16 bits, too, parity is that of float32: rounding moves matches and points.
        found = _compare(
            training.make(training.OURS, exact, network),
            training.make(args.peer, exact, network),
        )
        subjects[args.peer] = training.make(args.peer, plain, network)
        if setting.dtype != FLOAT32:
            subjects[f"{args.peer} float32"] = training.make(args.peer, exact, network)
    results = {"setting": dataclasses.asdict(setting), "parity": found}
    results |= timing_lines(subjects, args.rounds, setting)
    if args.memory:
        kinds = [kind for kind in training.KINDS if kind in subjects]
        results["extra_mebibytes"] = memory_lines(training.make, kinds, setting)
    write_json(args.json, {"machine": facts, **results})
    return 0


def _compare(ours, peer) -> dict[str, float]:
    import torch

    from mask2former.benchmark.networks import parity, training

    with training.same_points():
        with torch.no_grad():
            uncertain = ours.loss(), peer.loss()
        with training.uniform_points(ours), training.uniform_points(peer):
            losses = ours(), peer()
    norms = ours.gradient_norm(), peer.gradient_norm()
    found = {
        "total loss": (losses, parity.TOLERANCE_LOSS),
        "with uncertain points": (uncertain, parity.TOLERANCE_UNCERTAIN),
        "gradient norm": (norms, parity.TOLERANCE_GRADIENT),
    }
    differences = {k: parity.relative_difference(*pair) for k, (pair, _) in found.items()}
    print(parity.in_words(differences))
    for name, (_, tolerance) in found.items():
        parity.require({name: differences[name]}, tolerance)
    return differences
