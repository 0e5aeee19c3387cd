"""Parameter names, shapes and their order are the published ones, for every architecture.

The facts are those of the published models at full size; the models are built on the meta device.
"""

import gzip
import json
from pathlib import Path

import parity_models
import pytest
import torch

from detectron2.modeling import build_model

FACTS = {
    name: facts
    for path in sorted((Path(__file__).parents[1] / "fixtures/modeling").glob("state_dicts*.gz"))
    for name, facts in json.loads(gzip.decompress(path.read_bytes())).items()
}


@pytest.fixture(scope="module")
def build():
    models = {}

    def build(name: str) -> torch.nn.Module:
        if name not in models:
            cfg = parity_models.default_config()
            options = [x for item in FACTS[name]["options"].items() for x in item]
            cfg.merge_from_list(options)
            cfg.merge_from_list(FACTS[name]["overrides"])
            cfg.MODEL.DEVICE = "meta"
            with torch.device("meta"):
                models[name] = build_model(cfg)
        return models[name]

    return build


@pytest.mark.parametrize("name", sorted(FACTS))
def test_state_dict_has_published_names_shapes_types_and_order(build, name):
    model = build(name)
    parameters = {key for key, _ in model.named_parameters()}
    entries = [
        [
            key,
            list(value.shape),
            str(value.dtype).removeprefix("torch."),
            "pb"[key not in parameters],
        ]
        for key, value in model.state_dict().items()
    ]
    assert [entry[0] for entry in entries] == [entry[0] for entry in FACTS[name]["entries"]]
    assert entries == FACTS[name]["entries"]


@pytest.mark.parametrize("name", sorted(FACTS))
def test_model_has_the_published_number_of_parameters(build, name):
    assert sum(p.numel() for p in build(name).parameters()) == FACTS[name]["num_params"]


@pytest.mark.parametrize("name", sorted(FACTS))
def test_optimizer_sees_the_parameters_in_the_published_order(build, name):
    published = [entry[0] for entry in FACTS[name]["entries"] if entry[3] == "p"]
    assert [key for key, _ in build(name).named_parameters()] == published


@pytest.mark.parametrize("name", sorted(FACTS))
def test_buffers_that_are_not_saved_are_the_pixel_statistics(build, name):
    model = build(name)
    saved = model.state_dict()
    unsaved = [key for key, _ in model.named_buffers() if key not in saved]
    assert sorted(unsaved) == sorted(FACTS[name]["nonpersistent_buffers"])


@pytest.mark.parametrize("name", sorted(FACTS))
def test_state_dict_says_which_modules_have_the_current_layout(build, name):
    metadata = build(name).state_dict()._metadata
    assert [key for key, value in metadata.items() if value["version"] == 2 and "head" in key] == (
        FACTS[name]["versions"]["2"]
    )
