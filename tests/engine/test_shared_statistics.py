"""Before an evaluation all processes take the batch statistics that are saved."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mask2former.engine.trainer import _share_batch_statistics


def one_process(rank, store, folder):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm1d(3, affine=False))
    for buffer in (model[1].running_mean, model[2].running_var):
        buffer.fill_(rank + 1.0)
    _share_batch_statistics(model)
    torch.save(dict(model.named_buffers()), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def test_every_process_takes_the_first_ones_statistics(tmp_path):
    mp.spawn(one_process, args=(tmp_path / "store", tmp_path), nprocs=2)
    second = torch.load(tmp_path / "1.pth")
    assert second["1.running_mean"].tolist() == [1.0, 1.0]
    assert second["2.running_var"].tolist() == [1.0, 1.0, 1.0]


def test_a_single_process_is_left_alone():
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(3.0)
    _share_batch_statistics(norm)
    assert norm.running_mean.tolist() == [3.0, 3.0]
