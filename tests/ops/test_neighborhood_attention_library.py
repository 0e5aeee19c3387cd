"""The op behind the kernels is a good citizen of torch.library, torch.compile and autocast."""

import logging

import pytest
import torch
from neighborhood_cases import TIGHT, assert_all_close, make_inputs

from mask2former.modeling.backbone.dinat import NeighborhoodAttention2D
from mask2former.ops import implementation, libraries, neighborhood_attention_2d, use_implementation

OP = torch.ops.mask2former.neighborhood_attention
BACKWARD = torch.ops.mask2former.neighborhood_attention_backward


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def no_libraries(monkeypatch, tmp_path):
    """As if nothing had been built."""
    monkeypatch.setattr(libraries, "FOLDER", tmp_path)
    monkeypatch.setattr(implementation, "_already_said", set())
    libraries.load.cache_clear()
    yield tmp_path
    libraries.load.cache_clear()


@pytest.mark.usefixtures("neighborhood_kernel")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_opcheck_passes(dtype, bias):
    inputs = make_inputs(bias=bias).to(dtype)
    leaves = [t.requires_grad_() for t in inputs.maps]
    rpb = inputs.rpb.requires_grad_() if bias else None
    torch.library.opcheck(OP, (*leaves, rpb, 3, 2, 0.3))
    maps = [t.detach() for t in leaves]
    output, logsumexp = OP(*maps, rpb if rpb is None else rpb.detach(), 3, 2, 0.3)
    grad = inputs.gradient(output)
    rpb = None if rpb is None else rpb.detach()
    torch.library.opcheck(BACKWARD, (grad, *maps, rpb, output, logsumexp, 3, 2, 0.3))


def layer(kernel_size=3, dilation=2):
    torch.manual_seed(0)
    return NeighborhoodAttention2D(8, 2, kernel_size, dilation)


@pytest.mark.parametrize("mode", ["kernel", "reference"])
def test_the_layer_compiles_to_one_graph(mode, request):
    if mode == "kernel":
        request.getfixturevalue("neighborhood_kernel")
    attention, x = layer(), torch.randn(1, 9, 7, 8)
    with use_implementation(mode):
        eager = attention(x)
        eager.square().sum().backward()
        expected = attention.rpb.grad.clone()
        attention.zero_grad()
        compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
        output = compiled(x)
        output.square().sum().backward()
    torch.testing.assert_close(output, eager)
    torch.testing.assert_close(attention.rpb.grad, expected)


def test_the_tiles_compile_to_one_graph(no_libraries):
    attention, x = layer(), torch.randn(1, 9, 7, 8)
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    output = compiled(x)
    output.sum().backward()
    torch.testing.assert_close(output, attention(x))


@pytest.mark.usefixtures("neighborhood_kernel")
def test_one_compilation_serves_maps_of_any_size():
    attention = layer()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attention, fullgraph=True, dynamic=True, backend=counter)
    for height, width in [(9, 7), (10, 14), (16, 12)]:
        x = torch.randn(1, height, width, 8)
        torch.testing.assert_close(compiled(x), attention(x))
    # Dynamo compiles an empty graph, too, when it meets the question of padding.
    graphs = [graph.graph for graph in counter.graphs]
    assert sum(any("neighborhood" in str(n.target) for n in g.nodes) for g in graphs) == 1


@pytest.mark.usefixtures("neighborhood_kernel")
@pytest.mark.parametrize("strict", [False, True])
def test_the_layer_exports_with_any_map_size(strict):
    attention = layer().eval()
    sides = {1: torch.export.Dim("h", min=6, max=64), 2: torch.export.Dim("w", min=6, max=64)}
    exported = torch.export.export(
        attention, (torch.randn(1, 9, 7, 8),), dynamic_shapes=(sides,), strict=strict
    )
    assert any("neighborhood_attention" in str(node.target) for node in exported.graph.nodes)
    x = torch.randn(1, 12, 16, 8)
    torch.testing.assert_close(exported.module()(x), attention(x))


def test_shapes_alone_are_known_on_the_meta_device():
    with torch.device("meta"):
        assert layer()(torch.empty(1, 9, 7, 8)).shape == (1, 9, 7, 8)


@pytest.mark.parametrize("mode", ["kernel", "reference", "auto"])
def test_autocast_moves_maps_to_16_bits_and_leaves_the_bias(mode, request):
    if mode == "kernel":
        request.getfixturevalue("neighborhood_kernel")
    inputs = make_inputs(depth=8).to(torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (inputs.query, inputs.rpb)]
    with torch.autocast("cpu", torch.bfloat16), use_implementation(mode):
        output = inputs.run()
    rounded = [tensor.bfloat16() for tensor in inputs.maps]
    expected = neighborhood_attention_2d(*rounded, inputs.rpb, 3, 2, scale=0.3)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0.01)
    output.sum().backward()
    assert [leaf.grad.dtype for leaf in leaves] == [torch.float32] * 2


@pytest.mark.usefixtures("neighborhood_kernel")
def test_a_second_derivative_is_refused_not_wrong():
    inputs = make_inputs()
    leaf = inputs.query.requires_grad_()
    (grad,) = torch.autograd.grad(inputs.run("kernel").sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_without_a_library_the_tiles_run_and_say_so_once(no_libraries, caplog):
    inputs = make_inputs()
    with caplog.at_level(logging.WARNING):
        outputs = [inputs.run() for _ in range(3)]
    torch.testing.assert_close(outputs[0], inputs.run("tiled"), rtol=0, atol=0)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("Neighbourhood attention on cpu runs in PyTorch")
    assert "libneighborhood_attention_cpu.so has not been built" in message
    assert "python build_ops.py" in message


def test_a_kernel_that_is_demanded_but_missing_is_an_error(no_libraries):
    message = r"no compiled kernel of neighborhood_attention.*build_ops\.py"
    with use_implementation("kernel"), pytest.raises(RuntimeError, match=message):
        make_inputs().run()


def test_reference_mode_means_the_reference():
    inputs = make_inputs().to(torch.float32)
    with use_implementation("reference"):
        torch.testing.assert_close(inputs.run(), inputs.run("reference"), rtol=0, atol=0)


def test_gradients_of_the_tiles_survive_checkpointing_around_them():
    inputs = make_inputs(height=20, width=18, kernel_size=5, dilation=1)
    leaves = [tensor.requires_grad_() for tensor in inputs.maps]

    def run(*maps):
        return neighborhood_attention_2d(*maps, inputs.rpb, 5, path="tiled")

    plain = torch.autograd.grad(run(*leaves).sum(), leaves)
    output = torch.utils.checkpoint.checkpoint(run, *leaves, use_reentrant=False)
    assert_all_close(torch.autograd.grad(output.sum(), leaves), plain, **TIGHT)
