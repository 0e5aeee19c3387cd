"""User errors end a script with one line and status 2; everything else keeps its traceback."""

import argparse

import pytest
import torch
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader, Dataset

from mask2former.data.dataset_mappers.reading import ImageDecodeError
from mask2former.engine import WeightsError, launching, run
from mask2former.engine.errors import message_of


@pytest.fixture
def args():
    return argparse.Namespace(num_gpus=1, num_machines=1, machine_rank=0, dist_url="auto")


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ImageDecodeError("Cannot decode a.jpg: truncated", "a.jpg")


def test_user_error_ends_with_its_message(args, capsys):
    def main(args):
        raise WeightsError("w.pth: no such file")

    with pytest.raises(SystemExit) as ended:
        run(main, args)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: w.pth: no such file\n"


def test_machine_rank_comes_from_slurm(args, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    args.machine_rank = -1
    seen = []
    run(lambda given: seen.append(given.machine_rank), args)
    assert seen == [0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"machine_rank": -1}, "SLURM_PROCID, which is not set"),
        ({"machine_rank": 2, "num_machines": 2}, "it is 0 to 1"),
        ({"num_machines": 2}, "--dist-url auto is for a single machine"),
    ],
    ids=["no SLURM", "rank too high", "auto"],
)
def test_wrong_machines_are_refused_before_any_process_starts(
    args, monkeypatch, capsys, given, message
):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    vars(args).update(given)
    with pytest.raises(SystemExit) as ended:
        run(lambda args: None, args)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_process_that_the_system_killed_is_named(args, monkeypatch, capsys):
    def killed(*_, **__):
        raise ProcessExitedException("", 1, 4711, exit_code=-9, signal_name="SIGKILL")

    monkeypatch.setattr(launching, "launch", killed)
    with pytest.raises(SystemExit) as ended:
        run(lambda args: None, args)
    assert ended.value.code == 137
    message = capsys.readouterr().err
    assert "local rank 1 was ended by SIGKILL; most often the machine was out of memory" in message


def test_other_errors_pass_through(args):
    def main(args):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run(main, args)


@pytest.mark.parametrize("workers", [0, 1])
def test_message_from_a_loader_process_is_one_line(workers):
    torch.set_num_threads(1)
    with pytest.raises(ImageDecodeError) as caught:
        list(DataLoader(Broken(), num_workers=workers))
    assert message_of(caught.value) == "Cannot decode a.jpg: truncated"
