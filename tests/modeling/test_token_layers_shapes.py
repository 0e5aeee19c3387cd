"""Inputs that do not fit are errors, as without token layers; what PyTorch broadcasts still is."""

import pytest
import torch
from token_layer_cases import CASES, LEVELS, difference, randn, randomised, readable
from torch import nn

from mask2former.modeling.pixel_decoder.msdeformattn import cell_centres

pytestmark = pytest.mark.usefixtures("token_calls")

POINTS = cell_centres(LEVELS, "cpu")
MASK = CASES["swin"]()[1][1]


def points(*shape):
    return POINTS[None, :, None].expand(*shape)


POINTS_OF_ALL = points(2, -1, 2, -1)


def encoded(*, src=(2, 36, 64), pos=(1, 36, 64), to=POINTS_OF_ALL, shapes=LEVELS):
    return "encoder", (randn(*src), randn(*pos), to, shapes)


def attended(queries=(2, 5, 32), keys=(2, 300, 32), values=(2, 300, 32), attend=None, pos=(5, 32)):
    shapes = queries, keys, values
    return "attention", (*(randn(*s, seed=i) for i, s in enumerate(shapes)), attend, randn(*pos))


# Inputs of other shapes or kinds than usual, with what PyTorch makes of them.
FITTING = {
    "swin: one image, other sides": ("swin", (randn(1, 14, 8, 32), MASK)),
    "swin: shifted windows without a mask": ("swin", (randn(2, 9, 12, 32), None)),
    "encoder: positions of any image": encoded(pos=(36, 64)),
    "encoder: one position": encoded(pos=(2, 1, 64)),
    "encoder: points of any image": encoded(to=points(1, -1, 2, -1)),
    "encoder: points of any level": encoded(to=points(2, -1, 1, -1)),
    "encoder: boxes": encoded(to=POINTS_OF_ALL.repeat(1, 1, 1, 2)),
    "encoder: shapes in a tensor": encoded(shapes=torch.tensor(LEVELS)),
    "attention: no mask": attended(),
    "attention: a mask that is added": attended(attend=9.0 * randn(2, 1, 5, 300)),
    "attention: a mask of all rows": attended(attend=randn(2, 1, 1, 300) > 0),
}
NOT_FITTING = {
    "swin: channels": ("swin", (randn(2, 9, 12, 16), MASK)),
    "swin: more channels": ("swin", (randn(2, 9, 12, 64), MASK)),
    "swin: no batch": ("swin", (randn(9, 12, 32), MASK)),
    "encoder: channels": encoded(src=(2, 36, 32), pos=(1, 36, 32)),
    "encoder: positions": encoded(pos=(1, 35, 64)),
    "encoder: images of positions": encoded(pos=(3, 36, 64)),
    "encoder: tokens": encoded(src=(2, 30, 64), pos=(1, 30, 64), to=POINTS_OF_ALL[:, :30]),
    "encoder: points": encoded(to=POINTS_OF_ALL[:, :30]),
    "encoder: levels of points": encoded(to=points(2, -1, 3, -1)),
    "encoder: levels": encoded(to=points(2, -1, 1, -1), shapes=((6, 6),)),
    "encoder: coordinates": encoded(to=POINTS_OF_ALL[..., :1]),
    "attention: channels": attended(queries=(2, 5, 16), pos=(5, 16)),
    "attention: channels of values": attended(values=(2, 300, 16)),
    "attention: images": attended(keys=(3, 300, 32), values=(3, 300, 32)),
    "attention: mask": attended(attend=torch.ones(2, 1, 5, 299).bool()),
}


def built(name):
    return randomised(CASES[name]()[0])


@pytest.mark.parametrize("case", FITTING)
def test_inputs_that_fit_give_the_same(case):
    name, inputs = FITTING[case]
    module = built(name)
    wanted = readable(module, inputs)
    with torch.no_grad():
        found = module(*inputs)
    assert found.dtype == wanted.dtype
    assert difference(found, wanted) < 1e-5


@pytest.mark.parametrize("case", NOT_FITTING)
def test_inputs_that_do_not_fit_are_errors(case):
    name, inputs = NOT_FITTING[case]
    module = built(name)
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        readable(module, inputs)
    with pytest.raises((RuntimeError, ValueError, IndexError)), torch.no_grad():
        module(*inputs)


def test_reference_points_may_be_of_float64():
    module, inputs = CASES["encoder"]()
    src, pos, reference, shapes = inputs
    wanted = readable(randomised(module), inputs)
    with torch.no_grad():
        found = module(src, pos, reference.double(), shapes)
    assert difference(found.float(), wanted) < 1e-5


def test_a_bias_table_of_another_type_is_an_error():
    module, inputs = CASES["swin"]()
    module = randomised(module)
    module.attn.relative_position_bias_table.data = torch.zeros(169, 2, dtype=torch.float64)
    for run in (readable, lambda module, inputs: module(*inputs)):
        with pytest.raises(RuntimeError, match=r"type"), torch.no_grad():
            run(module, inputs)


def narrower(linear):
    return nn.Linear(linear.in_features, linear.out_features - 16).eval()


@pytest.mark.parametrize(
    "path",
    ["swin:attn.qkv", "swin:mlp.fc1", "swin:mlp.fc2", "swin:attn.proj", "encoder:linear1"]
    + ["encoder:self_attn.attention_weights", "encoder:self_attn.value_proj", "encoder:linear2"]
    + ["encoder:self_attn.sampling_offsets", "encoder:self_attn.output_proj"]
    + ["attention:layer.multihead_attn.out_proj"],
)
def test_layers_that_do_not_fit_together_are_errors(path):
    name, _, path = path.partition(":")
    module, inputs = CASES[name]()
    parent, _, last = path.rpartition(".")
    parent = randomised(module).get_submodule(parent)
    setattr(parent, last, narrower(getattr(parent, last)))
    with pytest.raises((RuntimeError, ValueError)):
        readable(module, inputs)
    with pytest.raises((RuntimeError, ValueError)), torch.no_grad():
        module(*inputs)


def test_attention_of_which_half_the_channels_were_pruned():
    """Of every head, as structured pruning does it."""
    module, inputs = CASES["swin"]()
    attn = randomised(module).attn
    rows = torch.arange(96).view(3, 2, 16)[:, :, :8].flatten()
    attn.qkv.weight.data, attn.qkv.bias.data = attn.qkv.weight.data[rows], attn.qkv.bias.data[rows]
    attn.proj.weight.data = attn.proj.weight.data[:, rows[:16]].contiguous()
    wanted = readable(module, inputs)
    with torch.no_grad():
        assert difference(module(*inputs), wanted) < 1e-5
