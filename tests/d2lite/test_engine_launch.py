"""Distributed jobs on CPU: spawned by launch(), and under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detectron2.engine import launch

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys

import torch
from torch import nn

from detectron2.engine import SimpleTrainer, create_ddp_model, launch
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.events import EventStorage


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))

    def forward(self, x):
        return {"loss": (self.weight * x).sum()}


def main(folder):
    rank = comm.get_rank()
    model = create_ddp_model(Model(), broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, [torch.tensor([1.0 + 2 * rank])], optimizer)
    trainer.train(0, 1)
    latest = {k: v[0] for k, v in trainer.storage.latest().items() if "loss" in k}
    facts = [
        rank,
        comm.get_world_size(),
        comm.get_local_rank(),
        comm.get_local_size(),
        round(model.module.weight.item(), 5),
        latest,
    ]
    with open(f"{folder}/rank{rank}.txt", "w") as f:
        f.write(repr(facts))


if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(sys.argv[1],))
"""


@pytest.fixture
def environment():
    path = os.pathsep.join([str(ROOT), str(ROOT / "d2lite"), os.environ.get("PYTHONPATH", "")])
    keep = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**keep, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("how", ["spawn", "torchrun"])
def test_two_cpu_processes_train_together(tmp_path, environment, how):
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    command = [sys.executable]
    if how == "torchrun":
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    first, second = (eval((tmp_path / f"rank{r}.txt").read_text()) for r in (0, 1))
    assert first[:4] == [0, 2, 0, 2] and second[:4] == [1, 2, 1, 2]
    # Gradients 1 and 3 are averaged; so are the losses, which only rank 0 stores.
    assert first[4] == second[4] == pytest.approx(0.8)
    assert first[5] == {"total_loss": 2.0}
    assert second[5] == {}


@pytest.mark.parametrize("processes", [0, 1])
def test_one_process_is_called_directly(processes):
    seen = []
    launch(seen.append, processes, args=("here",))
    assert seen == ["here"]


def test_several_machines_need_an_address():
    with pytest.raises(ValueError, match="--dist-url"):
        launch(print, 1, num_machines=2, dist_url="auto")
