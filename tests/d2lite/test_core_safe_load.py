"""Checkpoint files are data: nothing in them is run, and what is wrong with them is said."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import detectron2
from detectron2.checkpoint import DetectionCheckpointer

pytestmark = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="detectron2 runs code in pickles"
)


class RunsCode:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


WEIGHTS = {"weight": torch.full((1, 2), 7.0), "bias": torch.full((1,), 7.0)}


def write_pickle(content, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_old(content, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = {"pkl": write_pickle, "pth": torch.save, "old.pth": write_old}


def load(path: Path) -> nn.Module:
    model = nn.Linear(2, 1)
    DetectionCheckpointer(model).load(str(path))
    return model


def is_loaded(model: nn.Module) -> bool:
    return model.weight.tolist() == [[7.0, 7.0]]


@pytest.mark.parametrize("kind", WRITERS)
def test_code_in_a_file_is_not_run(tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    WRITERS[kind]({"model": WEIGHTS, "x": RunsCode(tmp_path / "ran")}, path)
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.mkdir[\s\S]*python -c"):
        load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", WRITERS)
def test_refusal_names_the_class_and_the_advice_works(tmp_path, kind, monkeypatch):
    from detectron2.config import CfgNode

    path = tmp_path / f"m.{kind}"
    WRITERS[kind]({"model": WEIGHTS, "cfg": CfgNode({"A": 1})}, path)
    with pytest.raises(
        pickle.UnpicklingError, match=r"detectron2\.config\.config\.CfgNode"
    ) as info:
        load(path)
    command = str(info.value).split('python -c "')[1].rsplit('"', 1)[0]
    monkeypatch.chdir(tmp_path)
    exec(command, {})
    assert is_loaded(load(tmp_path / "converted.pth"))


def test_tensor_inside_a_pickle_cannot_smuggle_code(tmp_path):
    # torch pickles a storage as bytes that are themselves read by torch.load
    class Storage:
        def __reduce__(self):
            inner = tmp_path / "inner.pth"
            torch.save(RunsCode(tmp_path / "ran"), inner)
            return torch.storage._load_from_bytes, (inner.read_bytes(),)

    path = tmp_path / "m.pkl"
    write_pickle({"model": {"w": Storage()}, "__author__": "x"}, path)
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.mkdir"):
        load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["m.pth", "m.pkl"])
@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs", b"PK\x03\x04xx"])
def test_files_that_are_no_checkpoint_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load(tmp_path / name)


@pytest.mark.parametrize("kind", WRITERS)
def test_cut_off_files_are_named(tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    WRITERS[kind]({"model": WEIGHTS}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=path.name):
        load(path)


@pytest.mark.parametrize("kind", ["pkl", "old.pth"])
def test_arrays_written_by_older_and_newer_numpy_are_read(tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    arrays = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
    WRITERS[kind]({"model": arrays, "__author__": "x", "step": np.int64(3)}, path)
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        content = path.read_bytes()
        for other in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
            content = content.replace(b"c" + other + b"\n", b"c" + name + b"\n")
        assert b"c" + name + b"\n" in content
        path.write_bytes(content)
        assert is_loaded(load(path))
