"""The published algorithm, which benchmarks measure ours with, gives the reference's numbers."""

import math

import pytest
import torch
from cuda_emulation import library_for_cpu
from deform_attn_cases import assert_all_close, make_inputs

from mask2former.ops import benchmark, kernels, libraries, yardstick
from mask2former.ops.benchmark import encoder_inputs
from mask2former.ops.libraries import MS_DEFORM_ATTN_YARDSTICK, MissingLibrary


def run_with_gradients(inputs) -> list[torch.Tensor]:
    """As ``Inputs.run_with_gradients``, by the published algorithm."""
    tensors = (inputs.value, inputs.locations, inputs.attention)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = yardstick.published_ms_deform_attn(leaves[0], inputs.shapes, None, *leaves[1:])
    steps = torch.arange(output.numel(), dtype=torch.float64, device=output.device)
    grad = (steps * 0.7).sin().view(output.shape).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yardstick_on_cpu")
    return library_for_cpu(MS_DEFORM_ATTN_YARDSTICK, folder, launches=2)


@pytest.fixture
def on_the_cpu(emulated, monkeypatch):
    """Launches go to the emulation."""

    def launch(name, value, shapes, attention, tensors, op):
        status = getattr(emulated, f"{op}_cuda_{name}")(
            libraries.DTYPES[value.dtype],
            kernels._sizes(value, shapes, attention),
            *[tensor.data_ptr() for tensor in tensors],
            0,
            None,
        )
        if status:
            raise RuntimeError(emulated.mask2former_cuda_error(status).decode())

    monkeypatch.setattr(kernels, "_launch", launch)


SIZES = {
    "two levels": {},
    "one pixel": {"shapes": [(1, 1)], "points": 1},
    "far outside": {"spread": 40.0},
    "a warp of channels": {"depth": 32, "batch": 1, "queries": 3},
    "no queries": {"queries": 0},
}


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_emulated_it_equals_the_reference(sizes):
    inputs = make_inputs(**sizes).to(torch.float32)
    expected = inputs.run_with_gradients("reference")
    assert_all_close(run_with_gradients(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("number", [math.nan, math.inf, 1e30, -3e9])
def test_a_sample_at_no_place_contributes_nothing(number):
    inputs = make_inputs(queries=2).to(torch.float32)
    inputs.locations[:, 1, :, 0, 2, 0] = number
    expected = inputs.run_with_gradients("reference")
    assert_all_close(run_with_gradients(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_cpu")
def test_what_it_does_not_take_is_an_error():
    with pytest.raises(RuntimeError, match="float32 only"):
        run_with_gradients(make_inputs())
    with pytest.raises(RuntimeError, match="more than 1024 channels"):
        run_with_gradients(make_inputs(depth=1025, queries=1).to(torch.float32))


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_cpu", "cpu_kernel")
def test_the_benchmark_times_it_beside_ours(monkeypatch):
    monkeypatch.setattr(benchmark, "_has_published", lambda value: True)
    arguments = encoder_inputs([(2, 3)], heads=2, depth=8)
    result = benchmark.compare("tiny", arguments, backward=True, rounds=1, bandwidth=1e9)
    assert result.published[0] > 0
    assert result.bound_seconds == yardstick.least_bytes(arguments, backward=True) / 1e9
    assert "the published algorithm" in str(result)
    assert "of memory's speed" in str(result)


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_it_equals_the_reference(sizes):
    try:
        libraries.load("cuda", MS_DEFORM_ATTN_YARDSTICK)
    except MissingLibrary as error:
        pytest.skip(str(error))
    inputs = make_inputs(**sizes).to(torch.float32)
    on_gpu = [tensor.cpu() for tensor in run_with_gradients(inputs.to("cuda"))]
    assert_all_close(on_gpu, inputs.run_with_gradients("reference"), rtol=1e-4, atol=1e-5)


def test_it_says_how_it_is_built(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "FOLDER", tmp_path)
    libraries.load.cache_clear()
    try:
        with pytest.raises(MissingLibrary, match=r"build_ops\.py --yardstick"):
            libraries.load("cuda", MS_DEFORM_ATTN_YARDSTICK)
    finally:
        libraries.load.cache_clear()


def test_the_least_traffic_is_every_tensor_once():
    arguments = encoder_inputs([(2, 3)], batch=1, heads=2, depth=4, points=5)
    value, locations, weights, output = 6 * 8, 6 * 2 * 5 * 2, 6 * 2 * 5, 6 * 8
    forward = 4 * (value + locations + weights + output)
    assert yardstick.least_bytes(arguments, backward=False) == forward
    backward = 4 * (value + locations + weights + output + 3 * value + locations + weights)
    assert yardstick.least_bytes(arguments, backward=True) == forward + backward


def test_bandwidth_is_that_of_a_copy():
    assert 1e8 < yardstick.copy_bandwidth("cpu", megabytes=4, repeats=2) < 1e13
