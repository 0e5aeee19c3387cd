"""Weights load with a report, misfits are refused, files are never half-written."""

import errno
import logging

import pytest
import torch
from torch import nn

from mask2former.engine import Checkpointer, WeightsError
from mask2former.engine.errors import CheckpointError


class Net(nn.Module):
    def __init__(self, width=4, classes=3, depth=12):
        super().__init__()
        self.backbone = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, classes)


@pytest.fixture
def weights(tmp_path):
    def save(state, name="w.pth"):
        torch.save({"model": state}, tmp_path / name)
        return str(tmp_path / name)

    return save


def test_everything_matched_is_reported(weights, caplog):
    source, target = Net(), Net()
    checkpointer = Checkpointer(target, strict=True)
    with caplog.at_level(logging.INFO, logger="mask2former"):
        checkpointer.load(weights(source.state_dict()))
    report = checkpointer.report
    assert len(report.matched) == 26
    assert not report.missing + report.mismatched + report.left_over
    assert "matched     26" in caplog.text
    torch.testing.assert_close(target.head.weight, source.head.weight)


def test_partial_match_is_reported_by_kind(weights, caplog):
    state = Net(classes=5).state_dict()
    del state["backbone.0.bias"]
    state["backbone.99.bias"] = torch.zeros(4)
    checkpointer = Checkpointer(Net())
    with caplog.at_level(logging.INFO, logger="mask2former"):
        checkpointer.load(weights(state))
    report = checkpointer.report
    assert report.missing == ["backbone.0.bias"]
    assert report.left_over == ["backbone.99.bias"]
    assert set(report.mismatched) == {"head.weight", "head.bias"}
    assert len(report.matched) == 23
    assert "(5, 4) in the file, (3, 4) here" in caplog.text


def test_nothing_matched_is_refused(weights):
    with pytest.raises(WeightsError, match=r"w\.pth: none of its 2 weights fits"):
        Checkpointer(Net()).load(weights(nn.Linear(2, 2).state_dict()))


def test_backbone_of_another_width_is_refused_in_training_too(weights):
    with pytest.raises(WeightsError, match="its backbone is of another architecture"):
        state = {
            **Net().state_dict(),
            **{k: v for k, v in Net(width=8).state_dict().items() if k.startswith("backbone")},
        }
        Checkpointer(Net()).load(weights(state))


def test_shallower_network_may_start_a_training_but_not_be_evaluated(weights):
    path = weights(Net(depth=6).state_dict())
    Checkpointer(Net()).load(path)
    with pytest.raises(WeightsError, match="12 of 24 parameters of the model's backbone"):
        Checkpointer(Net(), strict=True).load(path)


def test_backbone_only_file_starts_a_training(weights):
    state = {k: v for k, v in Net().state_dict().items() if k.startswith("backbone")}
    checkpointer = Checkpointer(Net())
    checkpointer.load(weights(state))
    assert checkpointer.report.missing == ["head.weight", "head.bias"]


def test_evaluation_says_which_weights_are_random(weights, caplog):
    state = {k: v for k, v in Net().state_dict().items() if k != "backbone.3.bias"}
    Checkpointer(Net(), strict=True).load(weights(state))
    assert "1 of 24 parameters of the model's backbone" in caplog.text
    assert "(backbone.3.bias, ...): evaluation runs with random values there" in caplog.text


def test_file_of_another_framework_names_the_importer(tmp_path):
    torch.save({"state_dict": Net().state_dict(), "meta": {}}, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match=r"theirs\.pth.*tools/import_weights\.py"):
        Checkpointer(Net()).load(str(tmp_path / "theirs.pth"))


def test_missing_file_is_named():
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such file"):
        Checkpointer(Net()).load("nowhere.pth")


def test_resuming_from_a_file_that_is_gone_says_what_named_it(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(WeightsError, match=r"last_checkpoint names model_0000009\.pth"):
        Checkpointer(Net(), str(tmp_path)).resume_or_load("", resume=True)


def test_unreadable_file_is_named(tmp_path):
    (tmp_path / "junk.pth").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"junk\.pth"):
        Checkpointer(Net()).load(str(tmp_path / "junk.pth"))


def test_failed_save_keeps_the_previous_file(tmp_path, monkeypatch):
    checkpointer = Checkpointer(Net(), str(tmp_path))
    checkpointer.save("model_final")
    before = (tmp_path / "model_final.pth").read_bytes()

    def full_disk(data, file):
        file.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:  # what torch.save's archive makes of it
            raise RuntimeError("unexpected pos 740352 vs 740240")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match=r"model_final\.pth: No space left.*--resume"):
        checkpointer.save("model_final")
    assert (tmp_path / "model_final.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_final.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
