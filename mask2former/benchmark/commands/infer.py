"""Inference end to end: one image through the network and post-processing, against a peer.

The same random weights in our model and in the peer, alternating in one process; what is timed is
normalising, the network, and panoptic and instance segmentation (semantic, too, with
``--opts MODEL.MASK_FORMER.TEST.SEMANTIC_ON True``). Class and mask logits are compared first; where
they differ, nothing is timed. Post-processing gets logits like a trained model's, the same for all:
random weights keep nothing.

  against Hugging Face's transformers:
    python tools/benchmark.py infer \\
        --config-file configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml

  against our own readable code, all fast paths off (MODEL.FAST False):
    python tools/benchmark.py infer --peer reference --config-file CONFIG

  in bfloat16 (the peer in bfloat16 and in float32), with peak memory:
    python tools/benchmark.py infer --dtype bfloat16 --memory --config-file CONFIG
"""

import argparse
from typing import Any

from mask2former.benchmark.options import add_network_options, setting_of, shielded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py infer``."""
    add_network_options(parser, rounds=5)
    parser.add_argument(
        "--output-size", type=int, nargs=2, metavar=("H", "W"), help="of the maps (as the image)"
    )


@shielded
def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 without parity, 2 for what users can mend."""
    import dataclasses

    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.networks import inference
    from mask2former.benchmark.networks.building import build_network
    from mask2former.benchmark.networks.reporting import memory_lines, timing_lines
    from mask2former.benchmark.networks.setting import FLOAT32

    setting, facts = setting_of(args, tuple(args.output_size or args.size))
    network = build_network(setting.config())
    subjects = {inference.OURS: inference.make(inference.OURS, setting, network)}
    plain = dataclasses.replace(setting, compiled=False)
    if args.peer != "none":
        subjects[args.peer] = inference.make(args.peer, plain, network)
    found, exact = _compare(subjects, setting, network)
    if setting.dtype != FLOAT32 and args.peer != "none":
        subjects[f"{args.peer} float32"] = exact
    results: dict[str, Any] = {"setting": dataclasses.asdict(setting), "parity": found}
    flops = _operations(subjects[inference.OURS])
    results |= timing_lines(subjects, args.rounds, setting, flops)
    if args.memory:
        kinds = [kind for kind in inference.KINDS if kind in subjects]
        results["extra_mebibytes"] = memory_lines(inference.make, kinds, setting)
    write_json(args.json, {"machine": facts, **results})
    return 0


def _compare(subjects: dict[str, Any], setting: Any, network: Any) -> tuple[dict, Any]:
    """Differences of the logits, which are printed; and the peer in float32 if that is another.

    In 16 bits each is compared with float32: ours must not be further away than is tolerated.
    """
    import dataclasses

    from mask2former.benchmark.networks import inference, parity
    from mask2former.benchmark.networks.setting import FLOAT32

    ours, *peers = subjects.values()
    exact = peers[0] if peers else None
    measure, tolerance = parity.relative_difference, parity.TOLERANCE
    if setting.dtype != FLOAT32:
        plain = dataclasses.replace(setting, dtype=FLOAT32, compiled=False)
        kind = [*subjects, inference.OURS][1]
        exact = inference.make(kind, plain, network)
        measure, tolerance = parity.relative_norm, parity.TOLERANCE_16_BIT
    if exact is None:
        print("parity: no peer, nothing to compare with")
        return {}, None
    wanted = exact.logits()
    names = ("class logits", "mask logits")
    found = {name: measure(a, b) for name, a, b in zip(names, ours.logits(), wanted)}
    print(parity.in_words(found))
    if peers and exact is not peers[0]:
        theirs = zip(names, peers[0].logits(), wanted)
        theirs = {f"peer's {name}": measure(a, b) for name, a, b in theirs}
        print(parity.in_words(theirs))
    parity.require(found, tolerance)
    return found, exact


def _operations(ours: Any) -> int:
    """Operations of the network on the image; a multiply-add is two."""
    import torch

    from mask2former.utils.op_counts import count_flops

    if ours.setting.compiled:
        return 0
    images = ours.images().tensor
    with torch.no_grad():
        features = ours.network.backbone(images)
    network = ours.network
    counts = count_flops(network.backbone, images), count_flops(network.sem_seg_head, features)
    return 2 * sum(c.total for c in counts)
