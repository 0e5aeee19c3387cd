"""The C++ kernel and the reference compute the recorded numbers, and the same as each other."""

import math
import os

import pytest
import torch
from deform_attn_cases import assert_all_close, make_inputs, recorded

from mask2former.ops import ms_deform_attn, use_implementation

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
MODES = ["reference", "kernel"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["op_single_level", "op_multi_level", "op_far_outside"])
def test_the_recorded_numbers_come_out(name, mode, cpu_kernel):
    case = recorded(name)
    names = ("value", "sampling_locations", "attention_weights")
    value, locations, attention = leaves = [case[key].requires_grad_() for key in names]
    with use_implementation(mode):
        output = ms_deform_attn(
            value, case["spatial_shapes"], case["level_start_index"], locations, attention
        )
    output.backward(case["grad_output"])
    torch.testing.assert_close(output, case["output"], **TIGHT)
    for key, leaf in zip(names, leaves):
        torch.testing.assert_close(leaf.grad, case[f"grad_{key}"], **TIGHT)


SIZES = {
    "one pixel": {"shapes": [(1, 1)], "points": 1},
    "one row, one column": {"shapes": [(1, 9), (9, 1)]},
    "one level": {"shapes": [(5, 7)]},
    "many levels": {"shapes": [(1 + i, 9 - i) for i in range(8)], "points": 5},
    "one head, one query": {"heads": 1, "queries": 1},
    "no queries": {"queries": 0},
    "no batch": {"batch": 0},
    "no points": {"points": 0},
    "far outside": {"spread": 40.0},
    "usual depth": {"depth": 32, "heads": 8},
    "many queries": {"queries": 1500, "depth": 16},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_kernel_equals_reference(sizes, cpu_kernel):
    inputs = make_inputs(**sizes)
    assert_all_close(
        inputs.run_with_gradients("kernel"), inputs.run_with_gradients("reference"), **TIGHT
    )


@pytest.mark.parametrize("depth", [*range(1, 20), 24, 31, 32, 33, 40, 48, 63, 64, 96, 127])
@pytest.mark.parametrize("instructions", [0, 1, 2], ids=["baseline", "avx2", "avx512"])
def test_every_depth_of_a_head_on_every_instruction_set(depth, instructions, cpu_kernel):
    if cpu_kernel.mask2former_cpu_instruction_set(instructions) != instructions:
        pytest.skip("not on this machine")
    try:
        for dtype, tolerance in ((torch.float64, TIGHT), (torch.float32, {})):
            inputs = make_inputs(depth=depth).to(dtype)
            assert_all_close(
                inputs.run_with_gradients("kernel"),
                inputs.run_with_gradients("reference"),
                **tolerance,
            )
    finally:
        cpu_kernel.mask2former_cpu_instruction_set(-1)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_the_derivatives(mode, cpu_kernel):
    inputs = make_inputs(batch=1, queries=3, depth=5)
    leaves = [t.requires_grad_() for t in (inputs.value, inputs.locations, inputs.attention)]
    with use_implementation(mode):
        assert torch.autograd.gradcheck(
            lambda v, x, a: ms_deform_attn(v, inputs.shapes, None, x, a), leaves
        )


@pytest.mark.parametrize("threads", [1, 2, 7, 64])
def test_any_number_of_threads_gives_the_same_result(threads, cpu_kernel):
    """To the bit twice over; between numbers of threads at most the order of a sum differs."""
    inputs = make_inputs(queries=700, depth=32, heads=3, shapes=[(9, 11), (5, 6)])
    expected = inputs.run_with_gradients("reference")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        once, again = (inputs.run_with_gradients("kernel") for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert_all_close(once, again, rtol=0, atol=0)
    assert_all_close(once, expected, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("depth", [5, 16, 32])
@pytest.mark.parametrize("mode", MODES)
def test_16_bit_values_are_summed_in_float32(dtype, depth, mode, cpu_kernel):
    inputs = make_inputs(depth=depth, queries=40).to(dtype)
    half = inputs.run_with_gradients(mode)
    full = inputs.to(torch.float32).run_with_gradients("reference")
    assert [tensor.dtype for tensor in half] == [dtype] * 4
    # One rounding of the exact result; the gradient coming in has been rounded as well.
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(half[0], full[0].to(dtype), rtol=eps, atol=1e-6)
    assert_all_close(half[1:], [t.to(dtype) for t in full[1:]], rtol=4 * eps, atol=4 * eps)


def test_float16_extremes_survive(cpu_kernel):
    numbers = [0.0, -0.0, 6e-8, -3e-5, 6.1e-5, 1.0, -65504.0, math.inf, -math.inf, math.nan]
    value = torch.tensor(numbers * 4, dtype=torch.float16).view(1, 1, 1, 40)
    centre = torch.full((1, 1, 1, 1, 1, 2), 0.5)
    with use_implementation("kernel"):
        output = ms_deform_attn(value, [(1, 1)], None, centre, torch.ones(1, 1, 1, 1, 1))
    torch.testing.assert_close(output.flatten(), value.flatten(), rtol=0, atol=0, equal_nan=True)


def test_locations_keep_their_precision_beside_16_bit_values(cpu_kernel):
    inputs = make_inputs(shapes=[(64, 64)], depth=8)
    mixed = [inputs.value.bfloat16(), inputs.shapes, None, inputs.locations.float()]
    mixed.append(inputs.attention.float())
    with use_implementation("kernel"):
        kernel = ms_deform_attn(*mixed)
    exact = ms_deform_attn(mixed[0].float(), *mixed[1:])
    assert kernel.dtype == torch.bfloat16
    torch.testing.assert_close(kernel, exact.bfloat16(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9])
def test_a_sample_at_no_place_contributes_nothing(number, mode, cpu_kernel):
    inputs = make_inputs(depth=16).to(torch.float32)
    lost = inputs.locations.clone()
    lost[:, 1, :, 0, 2, 0] = number
    inputs.attention[:, 1, :, 0, 2] = 0.25
    without = inputs.attention.clone()
    without[:, 1, :, 0, 2] = 0.0

    expected = make_inputs(depth=16).to(torch.float32)
    expected.attention = without
    inputs.locations = lost
    actual, expected = (case.run_with_gradients(mode) for case in (inputs, expected))
    torch.testing.assert_close(actual[0], expected[0])
    torch.testing.assert_close(actual[1], expected[1])
    assert not actual[2][:, 1, :, 0, 2].any()
    assert not actual[3][:, 1, :, 0, 2].any()


@pytest.mark.parametrize("mode", MODES)
def test_values_outside_the_samples_do_not_leak_in(mode, cpu_kernel):
    """A NaN in one corner of the map reaches only the samples beside it."""
    inputs = make_inputs(batch=1, shapes=[(8, 8)], depth=8, spread=0.5).to(torch.float32)
    clean = inputs.run(mode)
    inputs.value[:, 0] = math.nan
    torch.testing.assert_close(inputs.run(mode), clean)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_layout_in_memory_does_not_matter(dtype, cpu_kernel):
    inputs = make_inputs().to(dtype)
    expected = inputs.run_with_gradients("kernel")
    inputs.value = inputs.value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    inputs.locations = inputs.locations.transpose(0, 1).contiguous().transpose(0, 1)
    inputs.attention = torch.stack([inputs.attention, inputs.attention], -1)[..., 0]
    assert not any(t.is_contiguous() for t in (inputs.value, inputs.locations, inputs.attention))
    assert_all_close(inputs.run_with_gradients("kernel"), expected, rtol=0, atol=0)


def test_an_expanded_gradient_is_read_right(cpu_kernel):
    inputs = make_inputs()
    leaf = inputs.value.requires_grad_()
    inputs.run("kernel").sum().backward()  # the gradient is one number, expanded
    (expected,) = torch.autograd.grad(inputs.run("reference").sum(), leaf)
    torch.testing.assert_close(leaf.grad, expected, **TIGHT)


def test_the_kernel_uses_torchs_threads(cpu_kernel):
    """A pool of its own would fight with torch's for the cores."""
    inputs = make_inputs(queries=3000, depth=32, heads=8)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        torch.randn(3000, 3000).exp_()
        pool = set(os.listdir("/proc/self/task"))  # threads of earlier tests may still be ending
        inputs.run("kernel")
        assert set(os.listdir("/proc/self/task")) <= pool
    finally:
        torch.set_num_threads(before)
