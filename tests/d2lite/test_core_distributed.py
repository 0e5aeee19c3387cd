"""Two CPU processes: communication, synchronised norms, and checkpoints under DDP."""

import os
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import detectron2
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import get_norm
from detectron2.utils import comm


def start(rank: int, folder: str) -> None:
    """One of two processes: does everything in turn and writes down what failed."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",  # no port to collide with
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=2),
    )
    try:
        for work in WORKS:
            try:
                work(rank, Path(folder))
                outcome = ""
            except BaseException:  # noqa: BLE001 - the test shows it
                outcome = traceback.format_exc()
            Path(folder, f"{work.__name__}.{rank}").write_text(outcome)
            dist.barrier()  # nobody leaves, or goes on, before the other
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """Runs all works in one pair of processes (starting them is what takes the time).

    Gives a function from a work to the tracebacks of its two processes.
    """
    folder = tmp_path_factory.mktemp("two_processes")
    mp.spawn(start, args=(str(folder),), nprocs=2, join=True)
    return lambda work: [(folder / f"{work.__name__}.{rank}").read_text() for rank in range(2)]


def communicate(rank: int, folder: Path) -> None:
    comm.create_local_process_group(2)
    assert (comm.get_rank(), comm.get_world_size()) == (rank, 2)
    assert (comm.get_local_rank(), comm.get_local_size()) == (rank, 2)
    assert comm.is_main_process() == (rank == 0)
    assert comm.all_gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert comm.gather(rank) == ([0, 1] if rank == 0 else [])
    assert comm.gather(rank, dst=1) == ([0, 1] if rank == 1 else [])
    assert len(set(comm.all_gather(comm.shared_random_seed()))) == 1
    reduced = comm.reduce_dict({"b": torch.tensor(1.0 + rank), "a": torch.tensor(rank * 4.0)})
    if rank == 0:
        assert {k: v.item() for k, v in reduced.items()} == {"a": 2.0, "b": 1.5}
    comm.synchronize()


def test_communication_between_two_processes(failures):
    assert failures(communicate) == ["", ""]


def test_everything_works_with_a_single_process():
    assert (comm.get_rank(), comm.get_world_size()) == (0, 1)
    assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)
    assert comm.is_main_process()
    assert comm.all_gather("x") == comm.gather("x") == ["x"]
    assert comm.reduce_dict({"a": 1}) == {"a": 1}
    comm.synchronize()


def normalise(rank: int, folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    everything = torch.randn(5, 3, 4, 4, generator=generator)
    grad = torch.randn(5, 3, 4, 4, generator=generator)
    part = slice(0, 2) if rank == 0 else slice(2, 5)  # batches of different sizes
    for name in ("SyncBN", "naiveSyncBN_N"):
        reference_input = everything.clone().requires_grad_()
        reference = nn.BatchNorm2d(3)
        expected = reference(reference_input)
        (expected * grad).sum().backward()
        mine = everything[part].clone().requires_grad_()
        norm = DistributedDataParallel(get_norm(name, 3))
        out = norm(mine)
        (out * grad[part]).sum().backward()
        torch.testing.assert_close(out, expected[part], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.grad, reference_input.grad[part], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(norm.module.running_mean, reference.running_mean)
        if name == "SyncBN":
            torch.testing.assert_close(norm.module.running_var, reference.running_var)


@pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="torch's SyncBatchNorm needs a GPU"
)
def test_synchronised_norms_see_the_whole_batch_on_the_cpu(failures):
    assert failures(normalise) == ["", ""]


def load_where_only_rank_0_sees_the_file(rank: int, folder: Path) -> None:
    model = DistributedDataParallel(nn.Linear(2, 1))
    path = folder / f"seen_by_{rank}.pth"
    if rank == 0:
        torch.save({"model": {"weight": torch.full((1, 2), 7.0), "bias": torch.ones(1)}}, path)
    DetectionCheckpointer(model).load(str(path))
    assert model.module.weight.tolist() == [[7.0, 7.0]]


@pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False),
    reason="fvcore unwraps DDP before detectron2 looks",
)
def test_processes_that_do_not_see_the_file_get_the_weights_from_rank_0(failures):
    assert failures(load_where_only_rank_0_sees_the_file) == ["", ""]


def load_where_nobody_sees_the_file(rank: int, folder: Path) -> None:
    with pytest.raises(OSError, match="not found on main worker"):
        DetectionCheckpointer(DistributedDataParallel(nn.Linear(2, 1))).load(
            os.path.join(folder, "none.pth")
        )


@pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False),
    reason="fvcore unwraps DDP before detectron2 looks",
)
def test_missing_file_stops_all_processes(failures):
    assert failures(load_where_nobody_sees_the_file) == ["", ""]


def save_from_both(rank: int, folder: Path) -> None:
    own = folder / f"rank{rank}"
    DetectionCheckpointer(nn.Linear(1, 1), str(own)).save("m")
    assert (own / "m.pth").exists() == (rank == 0)


def test_only_the_main_process_writes(failures):
    assert failures(save_from_both) == ["", ""]


WORKS = (
    communicate,
    normalise,
    load_where_only_rank_0_sees_the_file,
    load_where_nobody_sees_the_file,
    save_from_both,
)
