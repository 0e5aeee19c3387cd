"""What a training script does before it trains: arguments, logging, seeds, writers, DDP."""

import argparse
import logging
import os
import sys

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

__all__ = ["create_ddp_model", "default_argument_parser", "default_setup", "default_writers"]

EXAMPLES = """
Examples:

One machine, one process:
    $ {prog} --config-file cfg.yaml

One machine, several processes:
    $ {prog} --num-gpus 8 --config-file cfg.yaml

Some options changed:
    $ {prog} --config-file cfg.yaml MODEL.WEIGHTS /path/to/weights.pth SOLVER.BASE_LR 0.001

Several machines:
    (machine 0) $ {prog} --machine-rank 0 --num-machines 2 --dist-url <URL> [other flags]
    (machine 1) $ {prog} --machine-rank 1 --num-machines 2 --dist-url <URL> [other flags]
"""


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The flags that all training scripts share.

    Args:
        epilog: shown at the end of ``--help``; default: examples.
    """
    parser = argparse.ArgumentParser(
        epilog=epilog or EXAMPLES.format(prog=sys.argv[0]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="path of a config")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in OUTPUT_DIR, if there is one",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate and exit")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes *per machine*")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="number of this machine, from 0"
    )
    # One fixed port per user: two jobs of one user on a machine need different --dist-url.
    user = os.getuid() if sys.platform != "win32" else 1
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{2**15 + 2**14 + hash(user) % 2**14}",
        help="where the processes meet; 'auto' takes a free port (one machine only)",
    )
    parser.add_argument(
        "opts",
        help="pairs KEY VALUE that change the config, at the end of the command line",
        default=None,
        nargs=argparse.REMAINDER,
    )
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Prepares a process for training or evaluation.

    Makes OUTPUT_DIR; sets up the loggers ``detectron2`` and ``fvcore``; logs the environment, the
    arguments and the config and writes ``config.yaml``; seeds every random generator with
    SEED + rank; sets cuDNN and matrix precision.

    Args:
        args: may lack ``config_file`` and ``eval_only``.
    """
    output_dir = cfg.OUTPUT_DIR
    if comm.is_main_process() and output_dir:
        PathManager.mkdirs(output_dir)
    comm.synchronize()  # the other ranks log into the folder too

    rank = comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)

    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if getattr(args, "config_file", ""):
        with PathManager.open(args.config_file, "r") as f:
            logger.info("Contents of args.config_file=%s:\n%s", args.config_file, f.read())
    logger.info("Running with full config:\n%s", cfg.dump())
    if comm.is_main_process() and output_dir:
        path = os.path.join(output_dir, "config.yaml")
        with PathManager.open(path, "w") as f:
            f.write(cfg.dump())
        logger.info("Full config saved to %s", path)

    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not getattr(args, "eval_only", False):
        # Not for evaluation: its images have many sizes, and the search is repeated for each.
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.get("FLOAT32_PRECISION"):
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        logger.info("Precision of float32 matrix products: %s", cfg.FLOAT32_PRECISION)


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Console line, ``metrics.json`` and TensorBoard files in ``output_dir``.

    Args:
        max_iter: for the remaining time.
    """
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **kwargs) -> nn.Module:
    """Wraps a model for distributed training; a job of one process gets it back as it is.

    Args:
        fp16_compression: exchange gradients in half precision.
        kwargs: for DistributedDataParallel. ``device_ids`` is filled in for models on a GPU.
    """
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).device.type == "cuda"
    if "device_ids" not in kwargs and on_gpu:
        kwargs["device_ids"] = [comm.get_local_rank()]
    ddp = DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        ddp.register_comm_hook(state=None, hook=fp16_compress_hook)
    logging.getLogger(__name__).debug("Model wrapped for %d processes", comm.get_world_size())
    return ddp
