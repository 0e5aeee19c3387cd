"""Checkpoints: contents, file kinds, key matching, atomic writing."""

import collections
import logging
import logging.handlers
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import detectron2
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.checkpoint.c2_model_loading import (
    align_and_update_state_dicts,
    convert_basic_c2_names,
)
from detectron2.checkpoint.catalog import ModelCatalog

d2lite_only = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="detectron2 reads and writes differently"
)


class Net(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.backbone = nn.Sequential(
            collections.OrderedDict(stem=nn.Linear(3, width), res2=nn.Linear(width, 2))
        )
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))


def filled(value: float = 1.0) -> Net:
    net = Net()
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def is_filled(net: nn.Module, value: float = 1.0) -> bool:
    return all(bool((p == value).all()) for p in net.parameters())


def write_pickle(content, path, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


def load(path, net=None):
    net = net or Net()
    extra = DetectionCheckpointer(net).load(str(path))
    return net, extra


# -- saving and resuming ---------------------------------------------------------------------


def test_saved_training_state_comes_back(tmp_path):
    net = filled()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.5)
    net.backbone(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saver = DetectionCheckpointer(net, str(tmp_path), optimizer=optimizer)
    saver.save("model_0000009", iteration=9)

    other = Net()
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=0.1)
    loader = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    extra = loader.resume_or_load("ignored.pth", resume=True)
    assert extra == {"iteration": 9}
    for a, b in zip(net.parameters(), other.parameters()):
        assert torch.equal(a, b)
    assert other_optimizer.param_groups[0]["lr"] == 0.5
    first = other_optimizer.state[next(other.parameters())]
    assert torch.equal(first["exp_avg"], optimizer.state[next(net.parameters())]["exp_avg"])


def test_without_resume_only_the_model_is_loaded(tmp_path):
    net = filled()
    DetectionCheckpointer(
        net, str(tmp_path), optimizer=torch.optim.SGD(net.parameters(), 1.0)
    ).save("m")
    other = Net()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    loader = DetectionCheckpointer(other, str(tmp_path / "elsewhere"), optimizer=optimizer)
    loader.resume_or_load(str(tmp_path / "m.pth"), resume=False)
    assert is_filled(other)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_last_checkpoint_names_the_newest_file(tmp_path):
    saver = DetectionCheckpointer(filled(), str(tmp_path))
    assert not saver.has_checkpoint()
    saver.save("one")
    saver.save("two")
    assert (tmp_path / "last_checkpoint").read_text() == "two.pth"
    assert saver.get_checkpoint_file() == str(tmp_path / "two.pth")
    assert sorted(saver.get_all_checkpoint_files()) == [
        str(tmp_path / "one.pth"),
        str(tmp_path / "two.pth"),
    ]


def test_empty_path_loads_nothing():
    assert DetectionCheckpointer(Net()).load("") == {}


def test_periodic_checkpointer_names_files_by_iteration(tmp_path):
    periodic = PeriodicCheckpointer(
        DetectionCheckpointer(filled(), str(tmp_path)), period=2, max_iter=5, max_to_keep=1
    )
    for iteration in range(5):
        periodic.step(iteration)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000003.pth",
        "model_final.pth",
    ]


class Failing:
    def state_dict(self):
        return {"bad": lambda: None}  # cannot be pickled


@d2lite_only
def test_interrupted_save_leaves_the_older_checkpoint_intact(tmp_path):
    DetectionCheckpointer(filled(), str(tmp_path)).save("model")
    with pytest.raises((pickle.PicklingError, AttributeError)):
        DetectionCheckpointer(filled(2.0), str(tmp_path), failing=Failing()).save("model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model.pth"]
    assert is_filled(load(tmp_path / "model.pth")[0])


def test_module_versions_survive_in_the_file(tmp_path):
    DetectionCheckpointer(filled(), str(tmp_path)).save("m")
    content = DetectionCheckpointer(Net())._load_file(str(tmp_path / "m.pth"))
    assert content["model"]._metadata["backbone.stem"] == {"version": 1}


# -- kinds of files --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("convert", [lambda t: t.numpy(), lambda t: t], ids=["arrays", "tensors"])
def test_converted_pickle_is_matched_by_suffix(tmp_path, convert, protocol):
    weights = {
        k[len("backbone.") :]: convert(v) for k, v in filled().state_dict().items() if "." in k
    }
    path = write_pickle(
        {"model": weights, "__author__": "third_party", "matching_heuristics": True},
        tmp_path / "converted.pkl",
        protocol,
    )
    assert is_filled(load(path)[0])


def test_caffe2_pickle_is_renamed_and_momentum_dropped(tmp_path):
    net = nn.ModuleDict(
        {"bottom": nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Conv2d(1, 1, 1)})})}
    )
    blobs = {
        "conv1_w": np.full((1, 1, 1, 1), 3, dtype=np.float32),
        "conv1_b": np.full(1, 3, dtype=np.float32),
        "conv1_w_momentum": np.zeros(1),
    }
    path = write_pickle({"blobs": blobs}, tmp_path / "R-50.pkl")
    assert is_filled(load(path, net)[0], 3)


def test_pycls_file_is_matched_by_suffix(tmp_path):
    state = {k[len("backbone.") :]: v for k, v in filled().state_dict().items() if "." in k}
    torch.save(
        {"model_state": {**state, "res2.num_batches_tracked": torch.ones(())}}, tmp_path / "m.pyth"
    )
    assert is_filled(load(tmp_path / "m.pyth")[0])


@pytest.mark.parametrize("zipped", [True, False])
def test_bare_state_dict_is_a_model(tmp_path, zipped):
    torch.save(filled().state_dict(), tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    assert is_filled(load(tmp_path / "m.pth")[0])


def test_arrays_and_numbers_of_numpy_are_data(tmp_path):
    state = {k: v.numpy() for k, v in filled().state_dict().items()}
    torch.save({"model": state, "best": np.float64(0.5), "ids": np.arange(3)}, tmp_path / "m.pth")
    net, extra = load(tmp_path / "m.pth")
    assert is_filled(net)
    assert extra["best"] == 0.5 and extra["ids"].tolist() == [0, 1, 2]


def test_query_asks_for_matching(tmp_path):
    torch.save({k[9:]: v for k, v in filled().state_dict().items() if "." in k}, tmp_path / "m.pth")
    assert is_filled(load(f"{tmp_path}/m.pth?matching_heuristics=True")[0])
    with pytest.raises(ValueError, match="query"):
        load(f"{tmp_path}/m.pth?unknown=1")


def test_prefix_of_data_parallel_is_stripped(tmp_path):
    torch.save({f"module.{k}": v for k, v in filled().state_dict().items()}, tmp_path / "m.pth")
    assert is_filled(load(tmp_path / "m.pth")[0])


# -- what does not fit -----------------------------------------------------------------------


def test_misfits_are_reported_and_left_alone(tmp_path):
    state = filled().state_dict()
    state["backbone.stem.weight"] = torch.ones(7, 7)
    state["new.weight"] = torch.ones(1)
    del state["backbone.res2.bias"], state["pixel_mean"]
    torch.save(state, tmp_path / "m.pth")
    checkpointer = DetectionCheckpointer(Net())
    incompatible = checkpointer._load_model(checkpointer._load_file(str(tmp_path / "m.pth")))
    # a misfit counts as missing too; pixel_mean comes from the config and is not mentioned
    assert sorted(incompatible.missing_keys) == ["backbone.res2.bias", "backbone.stem.weight"]
    assert incompatible.unexpected_keys == ["new.weight"]
    assert incompatible.incorrect_shapes == [("backbone.stem.weight", (7, 7), (4, 3))]


def test_other_values_than_arrays_are_refused(tmp_path):
    torch.save({"model": {"backbone.stem.weight": "text"}}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match="Unsupported type"):
        load(tmp_path / "m.pth")


@d2lite_only
def test_missing_file_names_the_config_key(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth.*MODEL\.WEIGHTS"):
        load(tmp_path / "none.pth")


# -- matching --------------------------------------------------------------------------------


def test_longest_suffix_wins():
    model = {"a.b.weight": torch.zeros(1), "c.weight": torch.zeros(1)}
    loaded = align_and_update_state_dicts(
        model, {"b.weight": torch.ones(1), "c.weight": torch.ones(1) * 2}, c2_conversion=False
    )
    assert {k: v.item() for k, v in loaded.items()} == {"a.b.weight": 1, "c.weight": 2}


def test_suffixes_end_at_dots():
    loaded = align_and_update_state_dicts(
        {"subnorm.weight": torch.zeros(1), "x.y": torch.zeros(1)},
        {"norm.weight": torch.ones(1), "y": torch.ones(1)},
        c2_conversion=False,
    )
    assert set(loaded) == {"x.y", "norm.weight"}


@pytest.fixture
def warnings_of_matching():
    """Records of WARNING and worse, however the loggers above are set up."""
    handler = logging.handlers.BufferingHandler(capacity=100)
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("detectron2.checkpoint.c2_model_loading")
    logger.addHandler(handler)
    yield handler.buffer
    logger.removeHandler(handler)


def test_misfitting_match_is_left_out_with_two_warnings(warnings_of_matching):
    loaded = align_and_update_state_dicts(
        {"a.w": torch.zeros(2), "a.v": torch.zeros(1)},
        {"w": torch.ones(3), "v": torch.ones(1)},
        c2_conversion=False,
    )
    assert loaded["a.v"].item() == 1 and "a.w" not in loaded
    assert len(warnings_of_matching) == 2


def test_one_entry_for_two_parameters_is_an_error():
    with pytest.raises(ValueError, match="Cannot match one checkpoint key to multiple keys"):
        align_and_update_state_dicts(
            {"a.w": torch.zeros(1), "b.w": torch.zeros(1)},
            {"w": torch.ones(1)},
            c2_conversion=False,
        )


def test_nothing_matched_returns_the_checkpoint():
    checkpoint = {"q": torch.ones(1)}
    model = {"a": torch.zeros(1)}
    assert align_and_update_state_dicts(model, checkpoint, c2_conversion=False) is checkpoint


def test_caffe2_names():
    old = ["conv1_w", "res_conv1_bn_s", "res2_0_branch1_bn_b", "res2_0_branch2a_w"]
    old += ["res3_1_branch2b_bn_riv", "res4_5_branch2c_bn_rm", "res2_0_branch1_gn_s", "pred_b"]
    assert convert_basic_c2_names(old) == [
        "stem.conv1.weight",
        "stem.conv1.norm.weight",
        "res2.0.shortcut.norm.bias",
        "res2.0.conv1.weight",
        "res3.1.conv2.norm.running_var",
        "res4.5.conv3.norm.running_mean",
        "res2.0.shortcut.norm.weight",
        "linear.bias",
    ]


def test_catalog_knows_the_imagenet_weights():
    assert ModelCatalog.get("ImageNetPretrained/MSRA/R-50").endswith("/MSRA/R-50.pkl")
    with pytest.raises(RuntimeError, match="not present in the catalog"):
        ModelCatalog.get("ImageNetPretrained/XYZ")
