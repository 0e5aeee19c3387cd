"""Modules that have token layers take them where nobody can notice, and nowhere else."""

import copy
import logging
import pickle
from types import SimpleNamespace

import pytest
import torch
from token_layer_cases import (
    CALLS,
    CASES,
    difference,
    in_float64,
    randomised,
    readable,
    threads,
)
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mask2former.ops import implementation, use_implementation
from mask2former.ops.libraries import TOKEN_LAYERS, MissingLibrary, load

# What PyTorch itself refuses, because parts of the readable path do not allow it.
IMPOSSIBLE = {
    ("swin", "with_functional_grad"),
    ("encoder", "with_functional_grad"),
    ("encoder", "with_vmap"),
    ("swin", "with_forward_derivatives"),
    ("encoder", "with_forward_derivatives"),
    ("attention", "with_forward_derivatives"),
}


@pytest.fixture(params=CASES)
def case(request, token_calls):
    module, inputs = CASES[request.param]()
    return SimpleNamespace(
        name=request.param,
        module=randomised(module),
        inputs=inputs,
        calls=token_calls,
        full=CALLS[request.param],
    )


def test_they_give_what_the_readable_path_gives(case):
    with torch.no_grad(), use_implementation("reference"):
        exact = [
            x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in case.inputs
        ]
        wanted = in_float64(case.module)(*exact)
    assert not case.calls
    for count in (1, 2, 4):
        with torch.no_grad(), threads(count):
            assert difference(case.module(*case.inputs), wanted) < 3e-6
    assert len(case.calls) == 3 * case.full


def test_they_are_called_in_inference_mode(case):
    with torch.inference_mode():
        found = case.module(*case.inputs)
    assert len(case.calls) == case.full
    assert difference(found, readable(case.module, case.inputs)) < 3e-6


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_call_them_with_their_own_weights(case, copied):
    wanted, module = readable(case.module, case.inputs), copied(case.module)
    with torch.no_grad():
        for parameter in case.module.parameters():
            parameter.zero_()
        assert difference(module(*case.inputs), wanted) < 3e-6
    assert len(case.calls) == case.full


# ---------------------------------------------------------------- ways to call


def with_gradients(module, inputs):
    return module(*inputs).detach()


def with_autocast(module, inputs):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return module(*inputs).float()


def with_trace(module, inputs):
    with torch.no_grad():
        tensors = tuple(x for x in inputs if torch.is_tensor(x))
        rest = inputs[len(tensors) :]
        whole = Whole(module, rest)
        return torch.jit.trace(whole, tensors, check_trace=False)(*tensors)


class Whole(nn.Module):
    def __init__(self, module, rest):
        super().__init__()
        self.module, self.rest = module, rest

    def forward(self, *inputs):
        return self.module(*inputs, *self.rest)


def with_compile(module, inputs):
    with torch.no_grad():
        return torch.compile(module, backend="eager", fullgraph=True)(*inputs)


def with_vmap(module, inputs):
    with torch.no_grad():
        return torch.func.vmap(lambda x: module(x, *inputs[1:]))(inputs[0][None])[0]


def with_functional_grad(module, inputs):
    with torch.no_grad():
        torch.func.grad(lambda x: module(x, *inputs[1:]).sum())(inputs[0])


def with_forward_derivatives(module, inputs):
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs[0], inputs[0].square())
        output = torch.autograd.forward_ad.unpack_dual(module(dual, *inputs[1:]))
    assert output.tangent.abs().sum() > 0
    return output.primal


def with_fake_tensors(module, inputs):
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [mode.from_tensor(x) if torch.is_tensor(x) else x for x in inputs]
        assert module(*fakes).shape == inputs[0].shape
    return None


def with_counter(module, inputs):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        found = module(*inputs)
    assert counter.get_total_flops() > 0
    return found


def with_global_hook(module, inputs, register=nn.modules.module.register_module_forward_hook):
    seen = []
    hook = register(lambda m, *_: seen.append(type(m)))
    try:
        with torch.no_grad():
            found = module(*inputs)
    finally:
        hook.remove()
    assert nn.Linear in seen and nn.LayerNorm in seen
    return found


def with_global_pre_hook(module, inputs):
    return with_global_hook(module, inputs, nn.modules.module.register_module_forward_pre_hook)


WAYS = [value for name, value in sorted(globals().items()) if name.startswith("with_")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_ways_of_calling_that_kernels_do_not_know(case, way, recwarn):
    if (case.name, way.__name__) in IMPOSSIBLE:
        with pytest.raises(
            (NotImplementedError, RuntimeError), match=r"vmap|forward|storage|functorch"
        ):
            way(case.module, case.inputs)
        assert not case.calls
        return
    found = way(case.module, case.inputs)
    assert not case.calls
    if found is not None:
        tolerance = 0.05 if way is with_autocast else 1e-5
        assert difference(found, readable(case.module, case.inputs)) < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_numbers(case, dtype):
    inputs = [
        x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x for x in case.inputs
    ]
    wanted = readable(case.module, case.inputs)
    with torch.no_grad():
        found = case.module.to(dtype)(*inputs)
    assert not case.calls and found.dtype == dtype
    assert difference(found.float(), wanted) < 0.05


def test_shapes_only(case):
    inputs = [x.to("meta") if torch.is_tensor(x) else x for x in case.inputs]
    with torch.no_grad():
        assert case.module.to("meta")(*inputs).shape == inputs[0].shape
    assert not case.calls


# ---------------------------------------------------------------- the library


def test_without_sgemm_the_readable_path_is_taken_and_says_so_once(case, monkeypatch, caplog):
    monkeypatch.setattr(implementation, "load", missing_for_token_layers)
    monkeypatch.setattr(implementation, "_already_said", set())
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = case.module(*case.inputs)
        assert len([r for r in caplog.records if "no sgemm" in r.getMessage()]) == 1
        assert difference(found, readable(case.module, case.inputs)) < 3e-6
        with use_implementation("kernel"), pytest.raises(RuntimeError, match="no sgemm"):
            case.module(*case.inputs)
    assert not case.calls


def missing_for_token_layers(device, op):
    if op == TOKEN_LAYERS:
        raise MissingLibrary("this build of torch shows no sgemm")
    return load(device, op)
