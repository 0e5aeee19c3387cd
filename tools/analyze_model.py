#!/usr/bin/env python
"""Counts a model's operations, activations and parameters, or prints its structure.

    python tools/analyze_model.py --tasks flop parameter -n 100 \\
        --config-file configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml

flop and activation run the first N images of DATASETS.TEST[0] through the model, post-processing
included, and report their mean and deviation. Without the data set:

    python tools/analyze_model.py --tasks flop --input-size 800 1344 --config-file CONFIG

A multiply-add counts as one flop, as in the papers. Weights are MODEL.WEIGHTS where they can be
had; counts do not depend on them, but for a few products of post-processing. Works on the CPU.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev

import torch
import tqdm
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_model
from detectron2.utils.analysis import parameter_count_table
from detectron2.utils.logger import setup_logger
from mask2former.data.build import build_test_loader
from mask2former.engine import Checkpointer
from mask2former.engine.errors import USER_ERRORS, ConfigError, WeightsError, message_of
from mask2former.engine.setup import choose_device, load_config
from mask2former.utils.op_counts import Counts, count_activations, count_flops, module_table

logger = logging.getLogger("detectron2")
TASKS = ("flop", "activation", "parameter", "structure")


def get_parser() -> argparse.ArgumentParser:
    """The shared command line and the flags of this tool."""
    parser = default_argument_parser(epilog=__doc__)
    parser.add_argument("--tasks", choices=TASKS, required=True, nargs="+")
    parser.add_argument(
        "-n", "--num-inputs", default=100, type=int, help="images for flop and activation (100)"
    )
    parser.add_argument(
        "--use-fixed-input-size",
        action="store_true",
        help="count on an empty image of INPUT.CROP.SIZE[0] squared instead of the real ones",
    )
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="count on one random image of this size; needs no data set",
    )
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """The config; a file that is no YAML is a LazyConfig."""
    if args.config_file and not args.config_file.endswith((".yaml", ".yml")):
        try:
            cfg = LazyConfig.load(args.config_file)
            return LazyConfig.apply_overrides(cfg, args.opts)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--config-file {args.config_file}: {error}") from error
    cfg = load_config(args.config_file, args.opts or [], need_data=False)
    cfg.DATALOADER.NUM_WORKERS = 0
    note = choose_device(cfg, args.num_gpus)
    if note:
        logger.info(note)
    return cfg


def make_model(cfg: CfgNode, *, with_weights: bool) -> nn.Module:
    """The network in evaluation mode, with MODEL.WEIGHTS if they are wanted and to be had."""
    if not isinstance(cfg, CfgNode):
        return instantiate(cfg.model).eval()
    model = build_model(cfg)
    if with_weights:
        try:
            Checkpointer(model).load(cfg.MODEL.WEIGHTS)
        except WeightsError as error:
            logger.warning("Counting with random weights: %s", error)
    return model.eval()


def inputs(cfg: CfgNode, args: argparse.Namespace) -> Iterator[list[dict]]:
    """Batches of one image."""
    if args.input_size:
        height, width = args.input_size
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        yield [{"image": image, "height": height, "width": width}]
        return
    for batch in islice(_images(cfg), args.num_inputs):
        if args.use_fixed_input_size and isinstance(cfg, CfgNode):
            side = int(cfg.INPUT.CROP.SIZE[0])
            batch[0]["image"] = torch.zeros((3, side, side))
        yield batch


def _images(cfg: CfgNode) -> Iterable[list[dict]]:
    if not isinstance(cfg, CfgNode):
        return instantiate(cfg.dataloader.test)
    if not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST is empty; give --input-size H W to count without images")
    try:
        return build_test_loader(cfg, cfg.DATASETS.TEST[0])
    except (OSError, KeyError) as error:
        raise ConfigError(
            f"the images of {cfg.DATASETS.TEST[0]} cannot be read; give --input-size H W to count "
            f"on a random image instead, or mend this: {error}"
        ) from error


def do_count(
    cfg: CfgNode, args: argparse.Namespace, count: Callable[..., Counts]
) -> tuple[nn.Module, list[Counts]]:
    """Counts on every input."""
    model = make_model(cfg, with_weights=True)
    total = 1 if args.input_size else args.num_inputs
    progress = tqdm.tqdm(inputs(cfg, args), total=total, unit="image", disable=None)
    return model, [count(model, batch) for batch in progress]


def do_flop(cfg: CfgNode, args: argparse.Namespace) -> None:
    """The published report of operations: one table, the mean by operator, the mean in all."""
    model, counts = do_count(cfg, args, count_flops)
    logger.info(
        "Flops table computed from only one input sample:\n"
        + module_table(model, counts[-1], "GFlops")
    )
    logger.info(
        f"Average GFlops for each type of operators:\n{_by_operator(counts, 1e9)}",
    )
    logger.info(f"Total GFlops: {_mean_and_deviation(counts, 1e9)}")


def do_activation(cfg: CfgNode, args: argparse.Namespace) -> None:
    """The published report of activations."""
    _, counts = do_count(cfg, args, count_activations)
    logger.info(
        "(Million) Activations for Each Type of Operators:\n" + str(_by_operator(counts, 1e6))
    )
    logger.info(f"Total (Million) Activations: {_mean_and_deviation(counts, 1e6)}")


def _by_operator(counts: list[Counts], unit: float) -> list[tuple[str, float]]:
    sums = sum((c.by_operator for c in counts), Counter())
    return [(name, value / len(counts) / unit) for name, value in sums.most_common()]


def _mean_and_deviation(counts: list[Counts], unit: float) -> str:
    totals = [c.total / unit for c in counts]
    return f"{fmean(totals):.1f}±{pstdev(totals):.1f}"


def do_parameter(cfg: CfgNode) -> None:
    """The published table of parameters."""
    model = make_model(cfg, with_weights=False)
    logger.info("Parameter Count:\n" + parameter_count_table(model, max_depth=5))


def do_structure(cfg: CfgNode) -> None:
    """The modules, as PyTorch prints them."""
    logger.info("Model Structure:\n" + str(make_model(cfg, with_weights=False)))


def check(args: argparse.Namespace) -> None:
    """Refuses flags of the shared command line that mean nothing here."""
    if args.eval_only:
        raise ConfigError("--eval-only has no meaning here")
    if args.num_gpus > 1:
        raise ConfigError(f"--num-gpus {args.num_gpus}: this tool is one process")
    if args.num_inputs < 1 or min(args.input_size or [1]) < 1:
        raise ConfigError("--num-inputs and --input-size must be at least 1")


def main(arguments: list[str] | None = None) -> int:
    """Runs the tasks in the given order; returns the exit status."""
    args = get_parser().parse_args(arguments)
    setup_logger(name=None)
    setup_logger()
    logging.getLogger("PIL").setLevel(logging.INFO)  # it reports every chunk of a PNG
    try:
        check(args)
        cfg = setup(args)
        for task in args.tasks:
            if task in ("flop", "activation"):
                {"flop": do_flop, "activation": do_activation}[task](cfg, args)
            else:
                {"parameter": do_parameter, "structure": do_structure}[task](cfg)
    except USER_ERRORS as error:
        print(f"error: {message_of(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
