"""The CUDA kernel computes what the reference computes on the CPU.

Run these under `compute-sanitizer` as well: locations that are far outside, NaN or infinite must
not read or write outside their tensors.
"""

import math

import pytest
import torch
from deform_attn_cases import assert_all_close, make_inputs, recorded

from mask2former.ops import ms_deform_attn, use_implementation
from mask2former.ops.libraries import MissingLibrary, load

pytestmark = pytest.mark.gpu
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def cuda_kernel():
    try:
        return load("cuda")
    except MissingLibrary as error:
        pytest.skip(str(error))


def check(inputs, **tolerance):
    """The kernel on the GPU against the reference on the CPU."""
    kernel = [tensor.cpu() for tensor in inputs.to("cuda").run_with_gradients("kernel")]
    assert_all_close(kernel, inputs.run_with_gradients("reference"), **tolerance)


@pytest.mark.parametrize("name", ["op_single_level", "op_multi_level", "op_far_outside"])
def test_the_recorded_outputs_come_out(name):
    case = {key: tensor.cuda() for key, tensor in recorded(name).items()}
    output = ms_deform_attn(
        case["value"],
        case["spatial_shapes"],
        case["level_start_index"],
        case["sampling_locations"],
        case["attention_weights"],
    )
    torch.testing.assert_close(output, case["output"], **TIGHT)


SIZES = {
    "one pixel": {"shapes": [(1, 1)], "points": 1},
    "one level": {"shapes": [(5, 7)]},
    "128 levels": {"shapes": [(1, 1 + i % 5) for i in range(128)], "points": 1},
    "no queries": {"queries": 0},
    "no batch": {"batch": 0},
    "no points": {"points": 0},
    "far outside": {"spread": 40.0},
    "many blocks": {"queries": 3000, "depth": 32, "heads": 8},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_kernel_equals_reference(sizes):
    check(make_inputs(**sizes), **TIGHT)


@pytest.mark.parametrize("depth", [*range(1, 18), 24, 31, 32, 33, 64, 96, 100, 128, 200, 256, 300])
def test_every_depth_of_a_head(depth):
    check(make_inputs(depth=depth), **TIGHT)
    check(make_inputs(depth=depth).to(torch.float32), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("depth", [5, 8, 12, 32, 256])
def test_16_bit_values_are_summed_in_float32(dtype, depth):
    inputs = make_inputs(depth=depth, queries=40).to(dtype)
    half = inputs.to("cuda").run_with_gradients("kernel")
    full = inputs.to(torch.float32).to("cuda").run_with_gradients("kernel")
    eps = torch.finfo(dtype).eps
    assert [tensor.dtype for tensor in half] == [dtype] * 4
    torch.testing.assert_close(half[0], full[0].to(dtype), rtol=eps, atol=1e-6)
    assert_all_close(half[1:], [t.to(dtype) for t in full[1:]], rtol=4 * eps, atol=4 * eps)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9])
def test_a_sample_at_no_place_contributes_nothing(number):
    inputs = make_inputs(depth=16).to(torch.float32)
    inputs.locations[:, 1, :, 0, 2, 0] = number
    check(inputs, rtol=1e-4, atol=1e-4)


def test_memory_that_is_not_aligned_is_read_right():
    inputs = make_inputs(depth=8).to(torch.float32).to("cuda")
    expected = inputs.run_with_gradients("kernel")
    shifted = torch.empty(inputs.value.numel() + 1, device="cuda")[1:].view(inputs.value.shape)
    inputs.value = shifted.copy_(inputs.value)
    assert_all_close(inputs.run_with_gradients("kernel"), expected, rtol=1e-5, atol=1e-5)


def test_layout_in_memory_does_not_matter():
    inputs = make_inputs().to("cuda")
    expected = inputs.run("kernel")
    inputs.value = inputs.value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    inputs.locations = inputs.locations.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(inputs.run("kernel"), expected, rtol=0, atol=0)


def test_gradients_are_the_derivatives():
    inputs = make_inputs(batch=1, queries=3, depth=5).to("cuda")
    leaves = [t.requires_grad_() for t in (inputs.value, inputs.locations, inputs.attention)]
    assert torch.autograd.gradcheck(
        lambda v, x, a: ms_deform_attn(v, inputs.shapes, None, x, a),
        leaves,
        nondet_tol=1e-12,  # values' gradients are added in varying order
    )


def test_opcheck_passes():
    inputs = make_inputs().to(torch.float32).to("cuda")
    flat = [side for shape in inputs.shapes for side in shape]
    tensors = [t.requires_grad_() for t in (inputs.value, inputs.locations, inputs.attention)]
    arguments = (tensors[0], flat, *tensors[1:])
    torch.library.opcheck(torch.ops.mask2former.ms_deform_attn, arguments)


def test_autocast_moves_values_alone_to_16_bits():
    inputs = make_inputs(depth=8).to(torch.float32).to("cuda")
    expected = inputs.run("kernel")
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype):
            output = inputs.run("kernel")
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)


def test_no_synchronisation_is_needed():
    inputs = make_inputs().to(torch.float32).to("cuda")
    inputs.run_with_gradients("kernel")
    torch.cuda.set_sync_debug_mode("error")
    try:
        inputs.run("kernel")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_cuda_graph_replays_it():
    inputs = make_inputs(depth=8).to(torch.float32).to("cuda")
    inputs.run("kernel")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = inputs.run("kernel")
    inputs.value.mul_(2)
    graph.replay()
    torch.testing.assert_close(output, inputs.run("kernel"))


def test_it_runs_on_the_current_stream():
    inputs = make_inputs(queries=5000, depth=32).to(torch.float32).to("cuda")
    expected = inputs.run("kernel")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        value = inputs.value * 2
        inputs.value = value
        output = inputs.run("kernel")
    stream.synchronize()
    torch.testing.assert_close(output, expected * 2)


def test_too_many_levels_are_an_error_not_another_path():
    inputs = make_inputs(shapes=[(1, 1)] * 129).to("cuda")
    with pytest.raises(RuntimeError, match="more than 128 levels"):
        inputs.run("auto")


def test_deterministic_algorithms_are_honoured():
    inputs = make_inputs().to("cuda")
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="deterministic"):
            inputs.run_with_gradients("kernel")
    finally:
        torch.use_deterministic_algorithms(False)


def test_every_device_of_the_machine_works():
    inputs = make_inputs()
    expected = inputs.run("reference")
    for index in range(torch.cuda.device_count()):
        with use_implementation("kernel"):
            output = inputs.to(f"cuda:{index}").run("kernel")
        torch.testing.assert_close(output.cpu(), expected, **TIGHT)
