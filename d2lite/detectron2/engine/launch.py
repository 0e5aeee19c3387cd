"""Starts the processes of a distributed job, or joins the ones that somebody else started."""

import logging
import os
import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2._missing import missing_getattr
from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable,
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Runs ``main_func(*args)`` in every process of the job. Its return values are discarded.

    * In an initialised process group, and under ``torchrun`` (its environment variables decide
      about ranks and sizes), the function is called in this process.
    * One process in all (0 or 1 per machine, one machine): called in this process.
    * Otherwise ``num_gpus_per_machine`` processes are spawned here. The backend is NCCL with
      CUDA and gloo without, so that "GPUs" are plain CPU processes where there is no GPU.

    Args:
        main_func: must be importable by a spawned process (a module-level function).
        num_gpus_per_machine: processes on each machine.
        machine_rank: of this machine, from 0.
        dist_url: for example ``tcp://127.0.0.1:8686``; None or "auto" takes a free port, which
            works on a single machine only.
        timeout: of the collectives.

    Raises:
        ValueError: "auto" with several machines, or more processes than GPUs.
    """
    if dist.is_available() and dist.is_initialized():
        _know_local_group(int(os.environ.get("LOCAL_WORLD_SIZE", num_gpus_per_machine or 1)))
        main_func(*args)
        return
    if _started_by_torchrun():
        _join_torchrun(main_func, args, timeout)
        return

    processes = max(1, num_gpus_per_machine)
    world_size = num_machines * processes
    if world_size == 1:
        main_func(*args)
        return
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise ValueError(
            f"--num-gpus {processes}, but this machine has {torch.cuda.device_count()}"
        )
    if dist_url is None or dist_url == "auto":
        if num_machines != 1:
            raise ValueError("--dist-url must be given when --num-machines is above 1")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    if num_machines > 1 and dist_url.startswith("file://"):
        logging.getLogger(__name__).warning(
            "--dist-url file:// is not reliable with several machines; prefer tcp://"
        )
    mp.start_processes(
        _worker,
        nprocs=processes,
        args=(main_func, world_size, processes, machine_rank, dist_url, args, timeout),
        daemon=False,
        start_method="spawn",
    )


def _worker(
    local_rank: int,
    main_func: Callable,
    world_size: int,
    processes: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
    timeout: timedelta,
) -> None:
    """What a spawned process does."""
    rank = machine_rank * processes + local_rank
    _init_group(dist_url, world_size, rank, local_rank, processes, timeout)
    main_func(*args)
    dist.destroy_process_group()


def _started_by_torchrun() -> bool:
    """Whether the environment describes a process of a distributed job (torchrun's variables)."""
    needed = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in needed)


def _join_torchrun(main_func: Callable, args: tuple, timeout: timedelta) -> None:
    """Joins the group that torchrun's variables describe and calls the function."""
    world_size = int(os.environ["WORLD_SIZE"])
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    _init_group("env://", world_size, rank, local_rank, local_size, timeout)
    main_func(*args)
    dist.destroy_process_group()


def _init_group(
    url: str, world_size: int, rank: int, local_rank: int, processes: int, timeout: timedelta
) -> None:
    """Initialises torch.distributed, the group of this machine and the device."""
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Several CPU processes with a thread per core each would slow each other down.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, (cores or 1) // processes))
    try:
        dist.init_process_group(
            backend="nccl" if has_gpu else "gloo",
            init_method=url,
            world_size=world_size,
            rank=rank,
            timeout=timeout,
        )
    except Exception:
        logging.getLogger(__name__).error("Process group URL: %s", url)
        raise
    _know_local_group(processes)
    # Nobody goes on before all are there: later time-outs would be misleading.
    comm.synchronize()


def _know_local_group(processes: int) -> None:
    """Creates the group of this machine's processes unless somebody did."""
    try:
        comm.get_local_process_group()
    except AssertionError:
        comm.create_local_process_group(processes)


def _free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.bind(("", 0))
        return s.getsockname()[1]


__getattr__ = missing_getattr(__name__)
