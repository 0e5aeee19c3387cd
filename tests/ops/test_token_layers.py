"""Perceptrons and samples of token layers equal a few lines of PyTorch each."""

import pytest
import torch
import torch.nn.functional as F
from token_layer_cases import difference, in_float64, linear, norm, randn, threads

from mask2former.ops import token_layers
from mask2former.ops.libraries import torch_blas

pytestmark = pytest.mark.usefixtures("token_kernel", "no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def packing(request, monkeypatch):
    """Whether MKL packs the weights of many tokens, as other libraries cannot."""
    blas = torch_blas()
    if request.param and not blas[1]:
        pytest.skip("torch has no MKL")
    without = type(blas)(blas[0], None, None, None)
    monkeypatch.setattr(token_layers, "torch_blas", lambda: blas if request.param else without)


# Few tokens (0, 1, 3), and more than 512, which have weights packed, as a whole number of tasks or
# not, of a batch or not.
TOKENS = [(0,), (1,), (3,), (2, 5, 7), (600,), (3, 256)]


@pytest.mark.parametrize("shape", TOKENS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_pre_norm_perceptron(shape, bias, packing):
    layers = norm(48, eps=1e-6), linear(48, 112, bias=bias), linear(112, 48, bias=bias)
    x = randn(*shape, 48)
    found = token_layers.pre_norm_perceptron(x, *layers)
    first_norm, fc1, fc2 = map(in_float64, layers)
    wanted = x.double() + fc2(F.gelu(fc1(first_norm(x.double()))))
    assert difference(found, wanted) < 1e-6


@pytest.mark.parametrize("shape", TOKENS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_post_norm_perceptron(shape, bias, packing):
    layers = (
        linear(64, 32, bias=bias),  # what joins may be of another width
        norm(32, seed=1),
        linear(32, 48, bias=bias),
        linear(48, 32, bias=bias),
        norm(32, eps=1e-3, seed=2),
    )
    x, attended = randn(*shape, 32), randn(*shape, 64, seed=1)
    found = token_layers.post_norm_perceptron(x, attended, *layers)
    projection, norm1, linear1, linear2, norm2 = map(in_float64, layers)
    y = norm1(x.double() + projection(attended.double()))
    assert difference(found, norm2(y + linear2(linear1(y).relu()))) < 1e-6


@pytest.mark.parametrize("count", [1, 2, 4])
def test_tokens_may_lie_anyhow_and_threads_do_not_matter(count):
    layers = linear(32, 32), norm(32), linear(32, 64), linear(64, 32), norm(32)
    x, attended = randn(3, 32, 250).transpose(1, 2), randn(3, 1, 32).expand(3, 250, 32)
    dense = token_layers.post_norm_perceptron(x.contiguous(), attended.contiguous(), *layers)
    with threads(count):
        found = token_layers.post_norm_perceptron(x, attended, *layers)
    assert difference(found, dense) < 1e-6


def gelu_in_kernel(values):
    """Each value comes out of the first linear layer and alone goes through the second."""
    fc1, fc2 = linear(16, 16, bias=False), linear(16, 16, bias=False)
    layer_norm = norm(16)
    layer_norm.weight.zero_(), layer_norm.bias.fill_(1.0)
    found = []
    for value in values.split(16):
        fc1.weight.zero_(), fc2.weight.copy_(torch.eye(16))
        fc1.weight[: len(value), 0] = value
        found.append(token_layers.pre_norm_perceptron(torch.zeros(1, 16), layer_norm, fc1, fc2))
    return torch.cat(found, 1)[0, : len(values)]


def test_gelu_is_exact():
    values = torch.linspace(-10, 10, 4001)
    wanted = F.gelu(values.double())
    assert (gelu_in_kernel(values) - wanted).abs().max() < 1e-6
    small = values.abs() < 3
    assert (gelu_in_kernel(values)[small] - wanted[small]).abs().max() < 3e-7


def test_gelu_of_large_numbers():
    values = torch.tensor([-1e2, -1e3, -1e4, -1e6, -1e9, -1e30, 1e2, 1e4, 1e30])
    torch.testing.assert_close(gelu_in_kernel(values), F.gelu(values), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mean", [0.0, 1e3, -3e4])
def test_norms_of_numbers_far_from_zero_are_as_good_as_those_of_torch(mean):
    layers = linear(96, 96), norm(96), linear(96, 16), linear(16, 96), norm(96, seed=1)
    for layer in (layers[0], *layers[2:4]):  # the norms alone
        layer.weight.zero_(), layer.bias.zero_()
    x = randn(50, 96) + mean
    wanted = in_float64(layers[4])(in_float64(layers[1])(x.double()))
    error = (token_layers.post_norm_perceptron(x, x, *layers) - wanted).abs().max()
    assert error < 3 * (layers[4](layers[1](x)) - wanted).abs().max() + 1e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tokens", [5, 600])
def test_what_is_no_number_spoils_its_own_token_only(value, tokens):
    layers = linear(32, 32), norm(32), linear(32, 64), linear(64, 32), norm(32)
    x, attended = randn(tokens, 32), randn(tokens, 32, seed=1)
    x[1, 7], attended[3, 2] = value, value
    for found in (
        token_layers.post_norm_perceptron(x, attended, *layers),
        token_layers.pre_norm_perceptron(x + attended, norm(32), *layers[2:4]),
    ):
        spoilt = found.isnan().all(1)
        assert spoilt.nonzero().flatten().tolist() == [1, 3]
        assert found[~spoilt].isfinite().all()


# heads, levels, points, depth
SAMPLES = {"usual": (8, 3, 4, 16), "narrow": (2, 4, 2, 48), "a level": (4, 1, 4, 32)}
LEVELS = [(7, 5), (4, 3), (2, 2), (1, 1)]


def sampling(case, *, bias=True):
    heads, levels, points, depth = SAMPLES[case]
    width = heads * depth
    count = heads * levels * points
    linears = (
        linear(64, width, bias=bias),
        linear(64, 2 * count, bias=bias, seed=1),
        linear(64, count, bias=bias, seed=2),
    )
    sizes = torch.tensor([[width, height] for height, width in LEVELS[:levels]]).float()
    return linears, sizes


def samples_in_float64(x, pos, reference, sizes, linears, heads):
    value_proj, offsets, weights = map(in_float64, linears)
    x, query = x.double(), x.double() + pos.double()
    levels = len(sizes)
    weights = weights(query).unflatten(-1, (heads, -1)).softmax(-1).unflatten(-1, (levels, -1))
    offsets = offsets(query).unflatten(-1, (heads, levels, -1, 2)) / sizes[:, None].double()
    locations = offsets + reference.double()[:, :, None, :, None]
    return value_proj(x).unflatten(-1, (heads, -1)), locations, weights


@pytest.mark.parametrize("case", SAMPLES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (2, 54), (1, 600), (2, 520), (0, 5), (2, 0)], ids=str)
def test_deformable_samples(case, bias, shape, packing):
    linears, sizes = sampling(case, bias=bias)
    batch, tokens = shape
    heads, levels = SAMPLES[case][0], len(sizes)
    x, pos = randn(batch, tokens, 64), randn(batch, tokens, 64, seed=1)
    reference = randn(batch, tokens, levels, 2, seed=2).sigmoid()
    found = token_layers.deformable_samples(x, pos, reference, sizes, *linears, heads)
    wanted = samples_in_float64(x, pos, reference, sizes, linears, heads)
    for actual, expected in zip(found, wanted):
        assert difference(actual, expected) < 1e-6


@pytest.mark.parametrize("count", [1, 2, 4])
def test_positions_and_reference_points_may_be_shared(count):
    linears, sizes = sampling("usual")
    x = randn(3, 64, 250).transpose(1, 2)
    points = randn(250, 2, seed=2).sigmoid()
    for pos in (randn(1, 250, 64, seed=1), randn(1, 250, 64, seed=1).expand(3, -1, -1)):
        for reference in (
            points[None, :, None].expand(3, -1, 3, -1),
            points[None, :, None].expand(1, -1, 3, -1),  # of the whole batch
            points[None, :, None].expand(3, -1, 1, -1),  # of all levels
            points.T.contiguous().T[None, :, None].expand(3, -1, 3, -1),
        ):
            with threads(count):
                found = token_layers.deformable_samples(x, pos, reference, sizes, *linears, 8)
            wanted = samples_in_float64(x, pos, reference, sizes, linears, 8)
            for actual, expected in zip(found, wanted):
                assert difference(actual, expected) < 1e-6


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_softmax_of_large_numbers_is_as_good_as_that_of_torch(size):
    linears, sizes = sampling("usual")
    x, pos = size * randn(1, 40, 64), torch.zeros(1, 40, 64)
    reference = torch.zeros(1, 40, 3, 2)
    _, _, found = token_layers.deformable_samples(x, pos, reference, sizes, *linears, 8)
    wanted = samples_in_float64(x, pos, reference, sizes, linears, 8)[2]
    torch_own = linears[2](x).unflatten(-1, (8, -1)).softmax(-1).unflatten(-1, (3, -1))
    assert (found - wanted).abs().max() < 3 * (torch_own - wanted).abs().max() + 1e-6
