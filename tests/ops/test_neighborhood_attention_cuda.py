"""The CUDA kernels compute what the reference computes, on a GPU, and emulated without one.

Without a GPU the same source is compiled for the CPU, with tests/fixtures/cuda_on_cpu in place of
CUDA's headers: blocks one after another, the threads of a block as threads of the machine. That
shows wrong arithmetic, wrong indices, reading what no thread has written, and barriers that not all
threads reach; it shows nothing of speed, and races by chance only.
"""

import pytest
import torch
from cuda_emulation import library_for_cpu
from neighborhood_cases import SHAPES, TIGHT, assert_all_close, make_inputs

from mask2former.ops import libraries, neighborhood_attention_kernels
from mask2former.ops.libraries import NEIGHBORHOOD_ATTENTION, MissingLibrary


def run_kernels(inputs) -> list[torch.Tensor]:
    """Output and gradients, past the dispatcher, which knows where tensors live."""
    where = (inputs.kernel_size, inputs.dilation, inputs.scale)
    output, logsumexp = neighborhood_attention_kernels.cuda_forward(
        *inputs.maps, inputs.rpb, *where
    )
    grad = inputs.gradient(output)
    grads = neighborhood_attention_kernels.cuda_backward(
        grad, *inputs.maps, inputs.rpb, output, logsumexp, *where
    )
    return [output, *(grads if inputs.rpb is not None else grads[:3])]


# ------------------------------------------------------------------ emulated


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The CUDA source as a library for the CPU."""
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    return library_for_cpu(NEIGHBORHOOD_ATTENTION, folder, launches=1)


@pytest.fixture
def on_the_cpu(emulated, monkeypatch):
    """Launches go to the emulation."""

    def launch(name, query, kernel_size, dilation, scale, tensors):
        status = getattr(emulated, f"neighborhood_attention_cuda_{name}")(
            libraries.DTYPES[query.dtype],
            neighborhood_attention_kernels._int64s((*query.shape, kernel_size, dilation)),
            scale,
            *map(neighborhood_attention_kernels._pointer, tensors),
            0,
            None,
        )
        if status:
            raise RuntimeError(emulated.mask2former_cuda_error(status).decode())

    monkeypatch.setattr(neighborhood_attention_kernels, "_launch", launch)


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_emulated_kernels_equal_the_reference(shape, bias):
    inputs = make_inputs(*shape, bias=bias)
    assert_all_close(run_kernels(inputs), inputs.run_with_gradients("reference"), **TIGHT)


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("depth", [15, 16, 31, 70, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_emulated_kernels_in_every_dtype(dtype, depth):
    inputs = make_inputs(depth=depth).to(dtype)
    full = inputs.to(torch.float32).run_with_gradients("reference")
    eps = max(torch.finfo(dtype).eps, 1e-6)
    for actual, expected in zip(run_kernels(inputs), full):
        assert actual.dtype == dtype
        assert (actual.float() - expected).norm() <= 4 * eps * expected.norm()


@pytest.mark.slow
@pytest.mark.usefixtures("on_the_cpu")
def test_too_deep_a_head_is_an_error_not_another_path():
    with pytest.raises(RuntimeError, match="more than 128 channels"):
        run_kernels(make_inputs(depth=129))


# ------------------------------------------------------------------ on a GPU


@pytest.fixture
def gpu_kernel():
    try:
        return libraries.load("cuda", NEIGHBORHOOD_ATTENTION)
    except MissingLibrary as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu_kernel")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_kernels_equal_the_reference(shape, bias):
    inputs = make_inputs(*shape, bias=bias)
    kernel = [tensor.cpu() for tensor in inputs.to("cuda").run_with_gradients("kernel")]
    assert_all_close(kernel, inputs.run_with_gradients("reference"), **TIGHT)


@pytest.mark.gpu
@pytest.mark.parametrize("path", ["kernel", "tiled", "flex"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_path_on_a_gpu(path, dtype, request):
    if path == "kernel":
        request.getfixturevalue("gpu_kernel")
    inputs = make_inputs(depth=32, height=70, width=50, kernel_size=7, dilation=3).to(dtype)
    full = inputs.to(torch.float32).run_with_gradients("reference")
    eps = max(torch.finfo(dtype).eps, 1e-4)  # TF32 in Triton
    for actual, expected in zip(inputs.to("cuda").run_with_gradients(path), full):
        assert (actual.cpu().float() - expected).norm() <= 8 * eps * expected.norm()


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu_kernel")
def test_opcheck_passes_on_a_gpu():
    inputs = make_inputs().to("cuda")
    leaves = [tensor.requires_grad_() for tensor in (*inputs.maps, inputs.rpb)]
    torch.library.opcheck(torch.ops.mask2former.neighborhood_attention, (*leaves, 3, 2, 0.3))


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu_kernel")
def test_deterministic_algorithms_are_honoured():
    inputs = make_inputs().to("cuda")
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="deterministic"):
            inputs.run_with_gradients("kernel")
    finally:
        torch.use_deterministic_algorithms(False)
