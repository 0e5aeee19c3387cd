"""Neighbourhood attention: every path gives the values and the gradients of its definition."""

import math

import pytest
import torch
import torch.nn.functional as F
from neighborhood_cases import SHAPES, TIGHT, assert_all_close, make_inputs
from parity_cases import arrays
from torch.utils._python_dispatch import TorchDispatchMode

from mask2former.ops import neighborhood_attention_2d, use_implementation

PATHS = ("kernel", "tiled", "reference")


@pytest.fixture(params=PATHS)
def path(request):
    if request.param == "kernel":
        request.getfixturevalue("neighborhood_kernel")
    return request.param


def by_definition(inputs) -> torch.Tensor:
    """Pixel by pixel, with the windows spelt out."""
    height, width = inputs.query.shape[2:4]
    size, step = inputs.kernel_size, inputs.dilation

    def neighbours(position, length):
        same = [other for other in range(length) if other % step == position % step]
        here = same.index(position)
        start = max(0, min(here - size // 2, len(same) - size))
        return [(same[n], n - here + size - 1) for n in range(start, start + size)]

    output = torch.empty_like(inputs.query)
    for y in range(height):
        for x in range(width):
            around = [
                (row, column, inputs.rpb[:, i, j])
                for row, i in neighbours(y, height)
                for column, j in neighbours(x, width)
            ]
            logits = [
                inputs.scale * (inputs.query[:, :, y, x] * inputs.key[:, :, row, column]).sum(-1)
                + bias
                for row, column, bias in around
            ]
            weights = torch.stack(logits, -1).softmax(-1)  # [B, heads, K * K]
            values = torch.stack([inputs.value[:, :, i, j] for i, j, _ in around], -2)
            output[:, :, y, x] = (weights[..., None] * values).sum(-2)
    return output


@pytest.mark.parametrize("shape", [(1, 2, 9, 8, 4, 3, 2), (2, 1, 6, 11, 3, 5, 1)])
def test_outputs_follow_the_definition(shape, path):
    inputs = make_inputs(*shape)
    torch.testing.assert_close(inputs.run(path), by_definition(inputs), **TIGHT)


@pytest.mark.parametrize("case", range(6))
def test_the_recorded_numbers_of_natten_come_out(case, path):
    recorded = {
        key.removeprefix(f"{case}/"): torch.from_numpy(value)
        for key, value in arrays("neighborhood_attention", "cases").items()
        if key.startswith(f"{case}/")
    }
    dim, heads, kernel_size, dilation = recorded["dim_heads_kernel_dilation"].tolist()
    x = recorded["x"].requires_grad_()
    parameters = {
        key.removeprefix("param/"): value.requires_grad_()
        for key, value in recorded.items()
        if key.startswith("param/")
    }
    height, width = x.shape[1:3]
    side = kernel_size * dilation
    padded = F.pad(x, (0, 0, 0, max(0, side - width), 0, max(0, side - height)))
    qkv = F.linear(padded, parameters["qkv.weight"], parameters["qkv.bias"])
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(3, 0, 4, 1, 2, 5)
    q = q * (dim // heads) ** -0.5
    output = neighborhood_attention_2d(q, k, v, parameters["rpb"], kernel_size, dilation, path=path)
    output = output.permute(0, 2, 3, 1, 4).flatten(3)[:, :height, :width]
    output = F.linear(output, parameters["proj.weight"], parameters["proj.bias"])
    torch.testing.assert_close(output, recorded["output"], rtol=1e-5, atol=3e-6)
    output.backward(recorded["grad_output"])
    torch.testing.assert_close(x.grad, recorded["grad_x"], rtol=1e-4, atol=1e-5)
    for name, parameter in parameters.items():
        expected = recorded[f"paramgrad/{name}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("fast", ["kernel", "tiled"])
def test_fast_paths_equal_the_reference(shape, bias, fast, request):
    if fast == "kernel":
        request.getfixturevalue("neighborhood_kernel")
    inputs = make_inputs(*shape, bias=bias)
    assert_all_close(
        inputs.run_with_gradients(fast), inputs.run_with_gradients("reference"), **TIGHT
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_equals_the_reference(shape):
    """Forward: PyTorch has FlexAttention's backward pass on GPUs only."""
    if shape[0] == 0:
        pytest.skip("FlexAttention takes no empty batch")
    inputs = make_inputs(*shape, bias=shape != SHAPES["wide map"])
    torch.testing.assert_close(inputs.run("flex"), inputs.run("reference"), **TIGHT)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_gradients_are_the_derivatives(bias, path):
    inputs = make_inputs(heads=1, height=6, width=7, depth=2, bias=bias)
    leaves = [t.requires_grad_() for t in (*inputs.maps, inputs.rpb) if t is not None]

    def run(query, key, value, rpb=None):
        return neighborhood_attention_2d(query, key, value, rpb, 3, 2, path=path)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=path == "tiled")


@pytest.mark.parametrize("depth", [1, 7, 16, 17, 24, 32, 33, 48, 64, 100])
@pytest.mark.parametrize("instructions", [0, 1, 2], ids=["baseline", "avx2", "avx512"])
def test_every_depth_of_a_head_on_every_instruction_set(depth, instructions, neighborhood_kernel):
    if neighborhood_kernel.mask2former_cpu_instruction_set(instructions) != instructions:
        pytest.skip("not on this machine")
    try:
        for dtype, tolerance in ((torch.float64, TIGHT), (torch.float32, {})):
            inputs = make_inputs(depth=depth, kernel_size=5, dilation=1).to(dtype)
            assert_all_close(
                inputs.run_with_gradients("kernel"),
                inputs.run_with_gradients("reference"),
                **({"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else tolerance),
            )
    finally:
        neighborhood_kernel.mask2former_cpu_instruction_set(-1)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_changes_no_bit(threads, neighborhood_kernel):
    inputs = make_inputs(height=70, width=40, depth=32, heads=3, kernel_size=5, dilation=1)
    expected = inputs.run_with_gradients("kernel")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual = inputs.run_with_gradients("kernel")
    finally:
        torch.set_num_threads(before)
    assert_all_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 3e4])
def test_logits_of_any_size_keep_their_softmax(size, neighborhood_kernel):
    """The kernel has an exponential of its own."""
    inputs = make_inputs(height=12, width=12, kernel_size=5, dilation=2).to(torch.float32)
    inputs.scale = size
    exact = inputs.to(torch.float64).run("reference").float()
    torch.testing.assert_close(inputs.run("kernel"), exact, rtol=2e-5 * max(size, 1), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_maps_are_summed_in_float32(dtype, path):
    inputs = make_inputs(depth=16, height=12).to(dtype)
    half = inputs.run_with_gradients(path)
    full = inputs.to(torch.float32).run_with_gradients("reference")
    assert [tensor.dtype for tensor in half] == [dtype] * 5
    # The tiles hold the bias in the dtype of the maps, and so do PyTorch's kernels the weights.
    eps = torch.finfo(dtype).eps * (4 if path == "tiled" else 1)
    torch.testing.assert_close(half[0], full[0].to(dtype), rtol=eps, atol=eps)
    for a, b in zip(half[1:], full[1:]):
        assert (a.float() - b).norm() < 4 * eps * b.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_layout_in_memory_does_not_matter(dtype, path):
    inputs = make_inputs().to(dtype)
    expected = inputs.run_with_gradients(path)
    inputs.query = inputs.query.transpose(2, 3).contiguous().transpose(2, 3)
    inputs.key = inputs.key.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    inputs.value = torch.stack([inputs.value, inputs.value], -1)[..., 1]
    inputs.rpb = inputs.rpb.transpose(1, 2).contiguous().transpose(1, 2)
    tolerance = {"rtol": 0, "atol": 0} if path == "kernel" else {}
    assert_all_close(inputs.run_with_gradients(path), expected, **tolerance)


def test_an_expanded_gradient_is_read_right(path):
    inputs = make_inputs()
    leaf = inputs.value.requires_grad_()
    (actual,) = torch.autograd.grad(inputs.run(path).sum(), leaf)
    (expected,) = torch.autograd.grad(inputs.run("reference").sum(), leaf)
    torch.testing.assert_close(actual, expected, **TIGHT)


def test_only_pixels_of_the_window_are_seen(path):
    inputs = make_inputs(height=16, width=15, kernel_size=3, dilation=2)
    clean = inputs.run(path)
    inputs.value = inputs.value.clone()
    inputs.value[:, :, 6, 6] = 1e6
    changed = (inputs.run(path) != clean).any(-1)[0, 0]  # [H, W]
    near = (4, 6, 8)
    assert {tuple(p) for p in changed.nonzero().tolist()} == {(y, x) for y in near for x in near}


class LargestTensor(TorchDispatchMode):
    """Notes the largest memory behind any tensor that an operator gives out."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                size = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.numbers = max(self.numbers, size)
        return out


@pytest.mark.parametrize("fast", ["kernel", "tiled"])
def test_fast_paths_never_hold_a_copy_of_the_keys_per_neighbour(fast, request):
    if fast == "kernel":
        request.getfixturevalue("neighborhood_kernel")
    inputs = make_inputs(height=96, width=64, depth=8, kernel_size=11, dilation=1).to(torch.float32)
    with LargestTensor() as largest:
        inputs.run_with_gradients(fast)
    assert largest.numbers <= 3 * inputs.key.numel()
    with LargestTensor() as largest:  # what is measured is there to be seen
        inputs.run("reference")
    assert largest.numbers >= 121 * inputs.key.numel()


def test_dropped_weights_keep_their_expectation():
    torch.manual_seed(0)
    inputs = make_inputs(heads=1, height=6, width=6, kernel_size=3, dilation=1)
    exact = inputs.run("reference")
    mean = sum(inputs.run(dropout=0.3) for _ in range(400)) / 400
    assert not torch.equal(inputs.run(dropout=0.3), inputs.run(dropout=0.3))
    torch.testing.assert_close(mean, exact, rtol=0.2, atol=0.2)


WRONG = {
    "dimensions": (lambda i: setattr(i, "query", i.query[0]), r"query must be \[batch, heads"),
    "integers": (lambda i: setattr(i, "query", i.query.int()), r"query must be.*torch\.int32"),
    "key": (lambda i: setattr(i, "key", i.key[..., 1:]), r"key must be as query"),
    "value dtype": (lambda i: setattr(i, "value", i.value.float()), r"value must be as query"),
    "even kernel": (lambda i: setattr(i, "kernel_size", 4), r"kernel_size must be odd.*got 4"),
    "dilation": (lambda i: setattr(i, "dilation", 0), r"dilation must be at least 1, got 0"),
    "small map": (
        lambda i: setattr(i, "dilation", 3),
        r"map of 9 x 8 is smaller than kernel_size \* dilation = 3 \* 3 = 9; pad it",
    ),
    "bias": (
        lambda i: setattr(i, "rpb", i.rpb[:, 1:]),
        r"rpb must be \[heads=2, 5, 5\] for kernel_size 3.*got \(2, 4, 5\)",
    ),
    "bias device": (lambda i: setattr(i, "rpb", i.rpb.to("meta")), r"rpb must be.*on meta"),
}


@pytest.mark.parametrize("mode", ["auto", "reference"])
@pytest.mark.parametrize("spoil,message", WRONG.values(), ids=WRONG.keys())
def test_arguments_that_do_not_fit_are_named(spoil, message, mode):
    inputs = make_inputs()
    spoil(inputs)
    with pytest.raises(ValueError, match=message), use_implementation(mode):
        inputs.run()


def test_an_unknown_path_is_named():
    with pytest.raises(ValueError, match="kernel, tiled, flex, reference; got 'fast'"):
        make_inputs().run("fast")
    with pytest.raises(ValueError, match=r"dropout .* needs the path 'tiled'"):
        make_inputs().run("reference", dropout=0.5)


def test_scale_is_one_unless_given(path):
    inputs = make_inputs()
    arguments = (inputs.rpb, inputs.kernel_size, inputs.dilation)
    scaled = neighborhood_attention_2d(
        inputs.query / math.sqrt(6), inputs.key, inputs.value, *arguments, path=path
    )
    inputs.scale = 6**-0.5
    torch.testing.assert_close(inputs.run(path), scaled, **TIGHT)
