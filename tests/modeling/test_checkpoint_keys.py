"""Checkpoints of older layouts load; current names never break; left-over names are reported."""

from collections import OrderedDict

import parity_cases
import parity_models
import pytest
import torch

from detectron2.modeling import build_model

FACTS = parity_cases.facts("checkpoint_keys", "r50_panoptic")


@pytest.fixture(scope="module")
def model():
    return build_model(parity_models.config("r50_panoptic"))


def checkpoint(model, names: list[str], versioned: bool):
    """The weights of the case under other names, with or without version metadata."""
    weights = parity_cases.weights("r50_panoptic")
    state_dict = OrderedDict(zip(names, (weights[name] for name in FACTS["current_names"])))
    if versioned:
        state_dict._metadata = model.state_dict()._metadata
    return state_dict


def load(model, names: list[str], versioned: bool):
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model.load_state_dict(checkpoint(model, names, versioned), strict=False)


def assert_holds_the_weights(model):
    expected = parity_cases.weights("r50_panoptic")
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_recorded_names_are_those_of_the_model(model):
    assert sorted(FACTS["current_names"]) == sorted(model.state_dict())


def test_old_names_without_version_are_converted(model, caplog):
    result = load(model, FACTS["old_names"], versioned=False)
    assert result.missing_keys == result.unexpected_keys == []
    assert_holds_the_weights(model)
    assert "53 parameter names under 'sem_seg_head' were converted" in caplog.text


def test_current_names_without_version_are_left_alone(model, caplog):
    # The published code turns these into pixel_decoder.pixel_decoder and loads nothing of them.
    result = load(model, FACTS["current_names"], versioned=False)
    assert result.missing_keys == result.unexpected_keys == []
    assert_holds_the_weights(model)
    assert "converted" not in caplog.text


def test_current_names_with_version_load(model):
    result = load(model, FACTS["current_names"], versioned=True)
    assert result.missing_keys == result.unexpected_keys == []
    assert_holds_the_weights(model)


def test_old_names_with_a_current_version_are_reported(model):
    # Missing as recorded; the published code keeps silent about the names that are left over.
    recorded = FACTS["load_results"]["D_old_names_with_version_metadata"]
    result = load(model, FACTS["old_names"], versioned=True)
    assert sorted(result.missing_keys) == sorted(recorded["missing"])
    left_over = set(FACTS["old_names"]) - set(FACTS["current_names"])
    assert sorted(result.unexpected_keys) == sorted(left_over)


def test_names_nobody_knows_are_reported_as_they_are(model):
    state_dict = checkpoint(model, FACTS["old_names"], versioned=False)
    state_dict["sem_seg_head.auxiliary.weight"] = torch.zeros(1)
    result = model.load_state_dict(state_dict, strict=False)
    assert result.missing_keys == []
    assert result.unexpected_keys == ["sem_seg_head.auxiliary.weight"]


def test_mixed_names_prefer_the_current_ones(model):
    state_dict = checkpoint(model, FACTS["current_names"], versioned=False)
    state_dict["sem_seg_head.mask_features.bias"] = torch.full((32,), 7.0)
    result = model.load_state_dict(state_dict, strict=False)
    assert result.missing_keys == []
    assert result.unexpected_keys == ["sem_seg_head.mask_features.bias"]
    assert_holds_the_weights(model)


@pytest.mark.parametrize("case", ["per_pixel_baseline", "per_pixel_baseline_plus"])
def test_per_pixel_heads_convert_old_names_too(case):
    model = build_model(parity_models.config(case))
    old = {
        key.replace("sem_seg_head.pixel_decoder.", "sem_seg_head."): value
        for key, value in parity_cases.weights(case).items()
    }
    model.load_state_dict(old)
    weight = model.sem_seg_head.pixel_decoder.mask_features.weight
    assert torch.equal(weight, old["sem_seg_head.mask_features.weight"])


def test_loading_leaves_the_checkpoint_as_it_is(model):
    state_dict = checkpoint(model, FACTS["old_names"], versioned=False)
    model.load_state_dict(state_dict)
    assert list(state_dict) == FACTS["old_names"]
