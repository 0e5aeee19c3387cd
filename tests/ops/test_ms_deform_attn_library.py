"""The op behind the kernels is a good citizen of torch.library, torch.compile and autocast."""

import pytest
import torch
from deform_attn_cases import make_inputs
from torch import nn

from mask2former.modeling.pixel_decoder.ms_deform_attn import MSDeformAttn
from mask2former.ops import ms_deform_attn, use_implementation

pytestmark = pytest.mark.usefixtures("cpu_kernel")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def op_arguments(inputs, requires_grad):
    flat = [side for shape in inputs.shapes for side in shape]
    tensors = [
        t.requires_grad_(requires_grad) for t in (inputs.value, inputs.locations, inputs.attention)
    ]
    return tensors[0], flat, *tensors[1:]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_opcheck_passes(dtype):
    inputs = make_inputs().to(dtype)
    torch.library.opcheck(torch.ops.mask2former.ms_deform_attn, op_arguments(inputs, True))
    arguments = op_arguments(make_inputs(depth=7).to(dtype), False)
    grad = torch.randn(2, 5, 14, dtype=dtype)
    torch.library.opcheck(torch.ops.mask2former.ms_deform_attn_backward, (grad, *arguments))


def test_opcheck_passes_for_16_bit_values():
    inputs = make_inputs().to(torch.float32)
    inputs.value = inputs.value.bfloat16()
    torch.library.opcheck(torch.ops.mask2former.ms_deform_attn, op_arguments(inputs, True))


class Layer(nn.Module):
    """MSDeformAttn on maps whose sizes it reads itself, as the pixel decoder does."""

    def __init__(self):
        super().__init__()
        self.attention = MSDeformAttn(d_model=16, n_levels=2, n_heads=2, n_points=2)

    def forward(self, fine, coarse, reference):
        shapes = [tuple(fine.shape[-2:]), tuple(coarse.shape[-2:])]
        flat = torch.cat([level.flatten(2).transpose(1, 2) for level in (fine, coarse)], 1)
        return self.attention(flat, reference, flat, shapes)


def layer_inputs(height, width):
    generator = torch.Generator().manual_seed(height)
    positions = height * width + (height // 2) * (width // 2)
    return (
        torch.randn(1, 16, height, width, generator=generator),
        torch.randn(1, 16, height // 2, width // 2, generator=generator),
        torch.rand(1, positions, 2, 2, generator=generator),
    )


@pytest.mark.parametrize("mode", ["kernel", "reference"])
def test_the_layer_compiles_to_one_graph(mode):
    layer = Layer()
    inputs = layer_inputs(8, 6)
    with use_implementation(mode):
        eager = layer(*inputs)
        eager.square().sum().backward()
        expected = layer.attention.sampling_offsets.bias.grad.clone()
        layer.zero_grad()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        output = compiled(*inputs)
        output.square().sum().backward()
    torch.testing.assert_close(output, eager)
    torch.testing.assert_close(layer.attention.sampling_offsets.bias.grad, expected)


def test_one_compilation_serves_images_of_any_size():
    layer = Layer()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    for height, width in [(8, 6), (10, 14), (16, 12)]:
        inputs = layer_inputs(height, width)
        torch.testing.assert_close(compiled(*inputs), layer(*inputs))
    assert counter.frame_count == 1


def test_forcing_the_reference_reaches_compiled_code():
    inputs = make_inputs().to(torch.float32)
    calls = []

    def backend(graph, _):
        calls.append(any("ms_deform_attn" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    compiled = torch.compile(ms_deform_attn, fullgraph=True, backend=backend)
    arguments = (inputs.value, inputs.shapes, None, inputs.locations, inputs.attention)
    for mode in ("kernel", "reference"):
        with use_implementation(mode):
            compiled(*arguments)
    assert calls == [True, False]


@pytest.mark.parametrize("strict", [False, True])
def test_the_layer_exports_with_any_image_size(strict):
    layer = Layer().eval()
    inputs = layer_inputs(8, 6)
    half_height, half_width = (torch.export.Dim(name, min=2, max=64) for name in ("h", "w"))
    dynamic = (
        {2: 2 * half_height, 3: 2 * half_width},
        {2: half_height, 3: half_width},
        {1: torch.export.Dim.DYNAMIC},
    )
    exported = torch.export.export(layer, inputs, dynamic_shapes=dynamic, strict=strict)
    assert any("ms_deform_attn" in str(node.target) for node in exported.graph.nodes)
    other = layer_inputs(12, 16)
    torch.testing.assert_close(exported.module()(*other), layer(*other))


def test_shapes_alone_are_known_on_the_meta_device():
    with torch.device("meta"):
        layer = Layer()
        inputs = [torch.empty(tensor.shape) for tensor in layer_inputs(8, 6)]
    assert layer(*inputs).shape == (1, 60, 16)


@pytest.mark.parametrize("mode", ["kernel", "reference"])
def test_autocast_moves_values_alone_to_16_bits(mode):
    inputs = make_inputs(depth=8).to(torch.float32)
    leaf = inputs.value.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = inputs.run(mode)
    expected = ms_deform_attn(
        inputs.value.bfloat16(), inputs.shapes, None, inputs.locations, inputs.attention
    )
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert leaf.grad.dtype == torch.float32


def test_the_layer_trains_under_autocast():
    layer = Layer()
    inputs = layer_inputs(8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(*inputs)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer(*inputs), rtol=0.05, atol=0.05)
    output.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_a_second_derivative_is_refused_not_wrong():
    inputs = make_inputs()
    leaf = inputs.locations.requires_grad_()
    (grad,) = torch.autograd.grad(inputs.run("kernel").sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()
