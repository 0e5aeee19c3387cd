"""Weights files of every format give the same named tensors, and bad ones a clear refusal."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mask2former.conversion import read_weights, weights_in, write_pickle
from mask2former.conversion.key_map import KeyMap, Rule
from mask2former.engine.errors import WeightsError

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1, 2])}


def pickled(path, content, protocol):
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)


def shards(folder):
    folder.mkdir()
    index = {name: f"model-{i}.safetensors" for i, name in enumerate(WEIGHTS)}
    for name, file in index.items():
        save_file({name: WEIGHTS[name]}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def written(kind, folder):
    path = folder / kind
    if kind == "shards":
        shards(path)
    elif kind == "plain.safetensors":
        save_file(WEIGHTS, path)
    elif kind == "arrays.pkl":
        pickled(path, {"model": {k: v.numpy() for k, v in WEIGHTS.items()}}, protocol=2)
    elif kind == "tensors.pkl":
        write_pickle(WEIGHTS, path, "test")
    elif kind == "parallel.pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in WEIGHTS.items()}}, path)
    elif kind == "old.pth":
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"model": WEIGHTS, "iteration": 3, "optimizer": {"state": {}}}, path)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "training.pth",
        "old.pth",
        "parallel.pth",
        "plain.safetensors",
        "arrays.pkl",
        "tensors.pkl",
        "shards",
    ],
)
def test_every_format_gives_the_same_tensors(kind, tmp_path):
    read = read_weights(written(kind, tmp_path))
    assert set(read) == set(WEIGHTS)
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


class History(dict):
    """Stands for an object of a framework that is not installed."""


def test_objects_of_other_frameworks_are_passed_over(tmp_path):
    content = {"state_dict": WEIGHTS, "message_hub": History(loss=[1.0]), "seed": np.int64(3)}
    torch.save(content, tmp_path / "a.pth")
    pickled(tmp_path / "a.pkl", {k: v for k, v in content.items()}, protocol=4)
    for name in ("a.pth", "a.pkl"):
        assert list(read_weights(tmp_path / name)) == list(WEIGHTS)


def test_shards_outside_the_folder_are_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(WeightsError, match="outside its folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", [{}, {"model": {"lr": 0.1}}, [1, 2]])
def test_files_without_tensors_are_refused(content):
    with pytest.raises(WeightsError, match=r"some\.pth: holds no named tensors"):
        weights_in(content, "some.pth")


def test_rule_with_several_sources_stacks_them_and_cuts_them_again():
    rules = KeyMap([Rule("x.{i}.qkv.{p}", ("y.{i}.q.{p}", "y.{i}.k.{p}", "y.{i}.v.{p}"), offset=1)])
    theirs = {f"y.1.{part}.weight": torch.full((2, 3), k) for k, part in enumerate("qkv")}
    ours = rules.to_ours(theirs)
    assert ours.weights["x.0.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    again = rules.to_theirs(ours.weights).weights
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


def test_incomplete_and_unknown_names_are_left_over():
    rules = KeyMap([Rule("qkv", ("q", "k", "v"))], ignored=["index$"])
    result = rules.to_ours(dict.fromkeys(("q", "k", "other", "an.index"), torch.ones(1)))
    assert result.weights == {}
    assert result.left_over == ["q", "k", "other"]
