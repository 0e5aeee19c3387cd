"""Modules that somebody altered do not lose what was altered where they have token layers."""

import copy
import functools

import pytest
import torch
from token_layer_cases import CASES, difference, randomised, readable
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from mask2former.modeling.pixel_decoder.msdeformattn import MSDeformAttnTransformerEncoderLayer
from mask2former.modeling.transformer_decoder.layers import CrossAttentionLayer
from mask2former.ops import use_implementation

pytestmark = pytest.mark.usefixtures("token_calls")


@pytest.fixture(params=CASES)
def case(request):
    module, inputs = CASES[request.param]()
    return randomised(module), inputs


def parts(module, kind=nn.Module):
    """Paths of the submodules of a kind."""
    return [name for name, m in module.named_modules() if name and isinstance(m, kind)]


def equal(module, inputs, tolerance=1e-5):
    """Whether it gives the same with kernels, where it takes them, and without."""
    torch.manual_seed(1)
    wanted = readable(module, inputs)
    torch.manual_seed(1)
    with torch.no_grad():
        return difference(module(*inputs), wanted) < tolerance


def altered(module, path, alter):
    """A copy with one submodule replaced by ``alter(submodule)``."""
    module = copy.deepcopy(module)
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, alter(module.get_submodule(path)))
    return module


@pytest.mark.parametrize("before", [False, True])
def test_a_hook_on_any_part_is_called(case, before):
    module, inputs = case
    for path in parts(module):
        part = module.get_submodule(path)
        seen = []
        register = part.register_forward_pre_hook if before else part.register_forward_hook
        hook = register(lambda *_: seen.append(0))  # noqa: B023
        readable(module, inputs)
        wanted = len(seen)
        with torch.no_grad():
            module(*inputs)
        hook.remove()
        assert len(seen) == 2 * wanted, path


def test_a_hook_on_any_part_may_change_its_output(case):
    module, inputs = case
    for path in parts(module):
        hook = module.get_submodule(path).register_forward_hook(lambda m, i, o: o + 1)
        assert equal(module, inputs), path
        hook.remove()


def test_backward_hooks_do_no_harm(case, token_calls):
    module, inputs = case
    for path in parts(module):
        module.get_submodule(path).register_full_backward_hook(lambda *_: None)
    assert equal(module, inputs)
    assert token_calls


def test_any_part_may_be_in_training_mode(case):
    """As for samples of dropout at inference."""
    module, inputs = case
    for path in parts(module):
        part = module.get_submodule(path)
        part.training = True
        assert equal(module, inputs), path
        part.training = False
    module.train()
    assert equal(module, inputs)


def test_the_forward_of_any_part_may_be_replaced(case):
    """As libraries do that move weights about."""
    module, inputs = case
    for path in parts(module):
        part = module.get_submodule(path)
        part.forward = functools.partial(doubled, part.forward)
        assert equal(module, inputs), path
        del part.forward


def doubled(forward, *args, **kwargs):
    return 2 * forward(*args, **kwargs)


class Scaled(nn.Module):
    def forward(self, weight):
        return 1.5 * weight


class Subclass(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Wrapped(nn.Module):
    """As adapters of low rank do it."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.more = nn.Linear(linear.in_features, linear.out_features, bias=False)

    def forward(self, x):
        return self.linear(x) + self.more(x)


def subclassed(linear):
    other = Subclass(linear.in_features, linear.out_features)
    other.load_state_dict(linear.state_dict())
    return other


def scaled(part):
    parametrize.register_parametrization(part, "weight", Scaled())
    return part


def biased(part):
    parametrize.register_parametrization(part, "bias", Scaled())
    return part


def transposed(part):
    part.weight = nn.Parameter(part.weight.T.contiguous().T)
    return part


def sparse(part):
    part.weight = nn.Parameter(part.weight.detach().to_sparse_csr(), requires_grad=False)
    return part


def pruned(part):
    return prune.l1_unstructured(part, "weight", amount=0.5)


def pruned_for_good(part):
    return prune.remove(pruned(part), "weight")


def unbiased(part):
    part.bias = None
    return part


LINEARS = [subclassed, scaled, biased, transposed, sparse, pruned, pruned_for_good, unbiased]
LINEARS += [Wrapped, parametrizations.weight_norm, nn.utils.spectral_norm]


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("alter", LINEARS, ids=lambda alter: alter.__name__)
def test_any_linear_layer_may_be_altered(case, alter):
    module, inputs = case
    for path in parts(module, nn.Linear):
        if path.endswith("sampling_offsets") and alter is sparse:
            continue  # the readable path scales its weight, which PyTorch cannot
        assert equal(altered(module, path, alter).eval(), inputs), path


NORMS = {
    "scaled": scaled,
    "none": lambda norm: nn.Identity(),
    "without bias": lambda norm: nn.LayerNorm(norm.normalized_shape, bias=False),
    "without weights": lambda norm: nn.LayerNorm(norm.normalized_shape, elementwise_affine=False),
    "another": lambda norm: nn.RMSNorm(norm.normalized_shape),
    "another eps": lambda norm: nn.LayerNorm(norm.normalized_shape, eps=0.1),
    "none in kernels": lambda norm: nn.LayerNorm(norm.normalized_shape, eps=0.0),
}


@pytest.mark.parametrize("alter", NORMS)
def test_any_norm_may_be_replaced(case, alter):
    module, inputs = case
    for path in parts(module, nn.LayerNorm):
        assert equal(altered(module, path, NORMS[alter]), inputs), path


@pytest.mark.parametrize("act", [nn.ReLU(), nn.GELU(approximate="tanh"), nn.Identity()], ids=str)
def test_an_activation_may_be_replaced(act):
    module, inputs = CASES["swin"]()
    module = randomised(module)
    module.mlp.act = act
    assert equal(module, inputs)


@pytest.mark.parametrize("name", ["gelu", "relu"])
def test_an_encoder_may_have_another_activation(name):
    _, inputs = CASES["encoder"]()
    sizes = {"n_levels": 2, "n_heads": 4, "activation": name}
    assert equal(randomised(MSDeformAttnTransformerEncoderLayer(64, 96, **sizes)), inputs)


def test_dropout_and_depth_may_be_replaced(case):
    module, inputs = case
    for path in parts(module):
        if type(module.get_submodule(path)).__name__ in ("Dropout", "DropPath", "Identity"):
            assert equal(altered(module, path, lambda _: nn.Identity()), inputs), path
            assert equal(altered(module, path, lambda _: nn.Sigmoid()), inputs), path


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_stay_so(case):
    module, inputs = case
    quantised = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
    assert equal(quantised, inputs)
    assert difference(readable(quantised, inputs), readable(module, inputs)) > 1e-4


def test_parameters_of_attention_may_be_parametrised():
    module, inputs = CASES["attention"]()
    module = randomised(module)
    attention = module.layer.multihead_attn
    parametrize.register_parametrization(attention, "in_proj_weight", Scaled())
    parametrize.register_parametrization(attention, "in_proj_bias", Scaled())
    assert equal(module, inputs)


def test_attention_before_which_is_a_norm():
    _, inputs = CASES["attention"]()
    layer = randomised(CrossAttentionLayer(32, 2, normalize_before=True))
    with torch.no_grad():
        found = layer(*inputs[:3], attend=inputs[3], query_pos=inputs[4])
        with use_implementation("reference"):
            wanted = layer(*inputs[:3], attend=inputs[3], query_pos=inputs[4])
    assert difference(found, wanted) < 1e-5
