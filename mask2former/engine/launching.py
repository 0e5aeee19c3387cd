"""Starts a script's ``main`` in as many processes as asked for; user errors end it cleanly."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.engine import launch
from detectron2.utils import comm

from .errors import USER_ERRORS, ConfigError, message_of

# What a shell sees after a user error, as with argparse.
EXIT_STATUS = 2
_TIMEOUT = timedelta(minutes=30)


def run(main: Callable, args: argparse.Namespace) -> None:
    """Runs ``main(args)``: in this process, in ``--num-gpus`` processes, or in torchrun's.

    Without CUDA the processes are CPU processes that talk through gloo. ``--machine-rank -1`` is
    SLURM's SLURM_PROCID, as in the IBS repository. A UserError ends the script with its message on
    stderr and exit status 2, without a traceback.
    """
    try:
        if _under_torchrun():
            _join_torchrun()
            try:
                _main_without_traceback(main, args)
            finally:
                dist.destroy_process_group()
            return
        _check_gpus(args.num_gpus)
        _check_machines(args)
        launch(
            _main_without_traceback,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
    except USER_ERRORS as error:
        _exit(error)
    except mp.ProcessExitedException as error:
        if error.signal_name is None:  # it has said what was wrong
            sys.exit(error.exit_code)
        hint = "; most often the machine was out of memory" if error.exit_code == -9 else ""
        print(
            f"error: the process of local rank {error.error_index} was ended by "
            f"{error.signal_name}{hint}. Checkpoints written before are kept: --resume goes on",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(128 - error.exit_code)  # as a shell reports a signal


def _main_without_traceback(main: Callable, args: argparse.Namespace) -> None:
    try:
        main(args)
    except USER_ERRORS as error:
        _exit(error)


def _exit(error: Exception) -> None:
    # What is wrong with the config is wrong on all ranks: one of them says so. The others wait,
    # since the first process that ends has all others killed.
    if comm.is_main_process() or not isinstance(error, ConfigError):
        print(f"error: {message_of(error)}", file=sys.stderr, flush=True)
    else:
        time.sleep(2)
    sys.exit(EXIT_STATUS)


def _check_gpus(wanted: int) -> None:
    present = torch.cuda.device_count()
    if torch.cuda.is_available() and wanted > present:
        raise ConfigError(f"--num-gpus {wanted}: this machine has {present}")


def _check_machines(args: argparse.Namespace) -> None:
    """Fills in the rank that SLURM knows; refuses what would wait for processes in vain."""
    if args.machine_rank == -1:
        rank = os.environ.get("SLURM_PROCID", "")
        if not rank.isdecimal():
            raise ConfigError(
                "--machine-rank -1 reads SLURM_PROCID, which is not set; start it with srun, or "
                "give --machine-rank 0 to N-1"
            )
        args.machine_rank = int(rank)
    if not 0 <= args.machine_rank < args.num_machines:
        raise ConfigError(
            f"--machine-rank {args.machine_rank}: with --num-machines {args.num_machines} it is "
            f"0 to {args.num_machines - 1}"
        )
    if args.dist_url == "auto" and args.num_machines > 1:
        raise ConfigError(
            f"--dist-url auto is for a single machine; with --num-machines {args.num_machines} "
            "give tcp://<address of machine 0>:<free port>, the same on all"
        )


def _under_torchrun() -> bool:
    needed = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in needed)


def _join_torchrun() -> None:
    """Joins the job that the environment describes (one or several machines)."""
    on_gpu = torch.cuda.is_available()
    local_rank = int(os.environ["LOCAL_RANK"])
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size())))
    comm.synchronize()
