"""MSDeformAttn agrees with the recorded layer (tests/fixtures/parity/deform_attn)."""

import pytest
import torch
from deform_attn_cases import recorded
from parity_cases import arrays

from mask2former.modeling.pixel_decoder.ms_deform_attn import MSDeformAttn

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def recorded_module(case):
    heads, levels, points = case["heads_levels_points"].tolist()
    module = MSDeformAttn(case["query"].shape[-1], levels, heads, points).double()
    module.load_state_dict(
        {key.removeprefix("param/"): v for key, v in case.items() if key.startswith("param/")}
    )
    return module


@pytest.mark.parametrize("name", ["module_2d_ref", "module_2d_ref_padding_mask", "module_4d_ref"])
def test_outputs_and_gradients_equal_the_recorded_ones(name):
    case = recorded(name)
    module = recorded_module(case)
    query = case["query"].requires_grad_()
    flat = case["input_flatten"].requires_grad_()
    output = module(
        query,
        case["reference_points"],
        flat,
        [tuple(shape) for shape in case["spatial_shapes"].tolist()],
        case["level_start_index"].tolist(),
        case.get("padding_mask"),
    )
    output.backward(case["grad_output"])
    torch.testing.assert_close(output, case["output"], **TOLERANCE)
    torch.testing.assert_close(query.grad, case["grad_query"], **TOLERANCE)
    torch.testing.assert_close(flat.grad, case["grad_input_flatten"], **TOLERANCE)
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, case[f"paramgrad/{key}"], **TOLERANCE)


def test_offsets_start_as_the_recorded_star():
    expected = arrays("deform_attn", "init_sampling_offsets_bias_d16_l3_h8_p4")["bias"]
    module = MSDeformAttn(d_model=16, n_levels=3, n_heads=8, n_points=4)
    torch.testing.assert_close(
        module.sampling_offsets.bias.detach(), torch.from_numpy(expected), rtol=0, atol=1e-6
    )
    assert not module.sampling_offsets.weight.any()
    assert not module.attention_weights.weight.any()
    assert not module.attention_weights.bias.any()


def test_shapes_may_be_given_as_the_published_tensors():
    case = recorded("module_2d_ref")
    output = recorded_module(case)(
        case["query"],
        case["reference_points"],
        case["input_flatten"],
        case["spatial_shapes"],
        case["level_start_index"],
    )
    torch.testing.assert_close(output, case["output"], **TOLERANCE)


def test_a_step_may_follow_inference_mode_at_the_same_sizes():
    module = MSDeformAttn(d_model=8, n_levels=1, n_heads=2, n_points=2)
    inputs = torch.rand(1, 15, 8), torch.rand(1, 15, 1, 2), torch.rand(1, 15, 8), [(3, 5)]
    with torch.inference_mode():
        module(*inputs)
    module(*inputs).sum().backward()
    assert module.sampling_offsets.weight.grad is not None


def test_the_published_import_path_leads_here():
    from mask2former.modeling.pixel_decoder.ops.modules import MSDeformAttn as published

    assert published is MSDeformAttn


def test_the_published_functions_take_the_published_arguments():
    from mask2former.modeling.pixel_decoder.ops.functions import MSDeformAttnFunction
    from mask2former.modeling.pixel_decoder.ops.functions.ms_deform_attn_func import (
        ms_deform_attn_core_pytorch,
    )

    shapes, starts = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])
    value = torch.randn(2, 16, 2, 3, dtype=torch.float64, requires_grad=True)
    locations = torch.rand(2, 5, 2, 2, 4, 2, dtype=torch.float64)
    weights = torch.rand(2, 5, 2, 2, 4, dtype=torch.float64)
    output = MSDeformAttnFunction.apply(value, shapes, starts, locations, weights, 128)
    expected = ms_deform_attn_core_pytorch(value, shapes, locations, weights)
    assert output.shape == (2, 5, 6)
    torch.testing.assert_close(output, expected, **TOLERANCE)
    output.sum().backward()
    assert value.grad is not None


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"d_model \(10\).*n_heads \(4\)"):
        MSDeformAttn(d_model=10, n_heads=4)


def test_reference_points_of_another_size_are_refused():
    module = MSDeformAttn(d_model=8, n_levels=1, n_heads=2, n_points=2)
    with pytest.raises(ValueError, match=r"reference_points.*\(1, 15, 1, 3\)"):
        module(torch.rand(1, 15, 8), torch.rand(1, 15, 1, 3), torch.rand(1, 15, 8), [(3, 5)])
