"""Communication between processes; every function works without ``torch.distributed`` too."""

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from detectron2._missing import missing_getattr

__all__ = [
    "all_gather",
    "create_local_process_group",
    "gather",
    "get_local_process_group",
    "get_local_rank",
    "get_local_size",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "reduce_dict",
    "shared_random_seed",
    "synchronize",
]

# The processes of this machine; set by create_local_process_group().
_LOCAL_PROCESS_GROUP: dist.ProcessGroup | None = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes of the job; 1 outside ``torch.distributed``."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process in the job; 0 outside ``torch.distributed``."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Create the groups of processes that share a machine; every process has to call it.

    Assumes that ranks are laid out machine by machine.

    Raises:
        AssertionError: called twice, or the world size is no multiple of the argument.
    """
    global _LOCAL_PROCESS_GROUP
    if _LOCAL_PROCESS_GROUP is not None:
        raise AssertionError("create_local_process_group() was called before")
    world_size = get_world_size()
    if world_size % num_workers_per_machine != 0:
        raise AssertionError(
            f"{world_size} processes cannot be split into machines of {num_workers_per_machine}"
        )
    machine = get_rank() // num_workers_per_machine
    for index in range(world_size // num_workers_per_machine):
        first = index * num_workers_per_machine
        group = dist.new_group(list(range(first, first + num_workers_per_machine)))
        if index == machine:
            _LOCAL_PROCESS_GROUP = group


def get_local_process_group() -> dist.ProcessGroup:
    """The group of this machine's processes (for SyncBN or DDP inside one machine).

    Raises:
        AssertionError: ``create_local_process_group`` was not called.
    """
    if _LOCAL_PROCESS_GROUP is None:
        raise AssertionError(
            "The processes of this machine are unknown: call "
            "detectron2.utils.comm.create_local_process_group() after init_process_group() "
            "(detectron2.engine.launch does)"
        )
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """Index of this process on its machine; 0 outside ``torch.distributed``."""
    return dist.get_rank(group=get_local_process_group()) if _is_distributed() else 0


def get_local_size() -> int:
    """Number of processes of the job on this machine; 1 outside ``torch.distributed``."""
    return dist.get_world_size(group=get_local_process_group()) if _is_distributed() else 1


def synchronize() -> None:
    """Barrier over all processes; nothing for a single one."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # Naming the device keeps NCCL from guessing it (and from its warning).
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@functools.lru_cache(maxsize=1)
def _cpu_group() -> dist.ProcessGroup:
    """A group that can carry CPU objects: a gloo one beside NCCL, else the default group."""
    if dist.get_backend() == dist.Backend.NCCL:
        return dist.new_group(backend="gloo")
    return dist.group.WORLD


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect any picklable object from every process, in rank order, on every process."""
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    world_size = dist.get_world_size(group)
    if world_size == 1:
        return [data]
    output: list[Any] = [None] * world_size
    dist.all_gather_object(output, data, group=group)
    return output


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Like :func:`all_gather`, on rank ``dst`` only; other ranks get an empty list."""
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    world_size = dist.get_world_size(group)
    if world_size == 1:
        return [data]
    if dist.get_rank(group) == dst:
        output: list[Any] = [None] * world_size
        dist.gather_object(data, output, dst=dst, group=group)
        return output
    dist.gather_object(data, None, dst=dst, group=group)
    return []


def shared_random_seed() -> int:
    """A random number that is equal on all processes (rank 0 draws it from numpy's generator)."""
    return all_gather(int(np.random.randint(2**31)))[0]


def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Sum (or average) a dict of scalar tensors onto rank 0; other ranks' values are undefined.

    All processes have to hold the same keys.
    """
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    with torch.no_grad():
        names = sorted(input_dict)  # the same order everywhere
        values = torch.stack([input_dict[name] for name in names], dim=0)
        dist.reduce(values, dst=0)
        if average and get_rank() == 0:
            values /= world_size
        return dict(zip(names, values))


__getattr__ = missing_getattr(__name__)
