"""ViT-Adapter on BEiT: recorded features, published names, windows, any size, clear refusals."""

import io

import parity_cases
import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.backbone.vit_adapter import BEiTAdapter
from mask2former.modeling.backbone.vit_adapter.beit import Attention
from mask2former.modeling.errors import BackboneError

CASE = "vit_adapter_beit"
NAMES = ("res2", "res3", "res4", "res5")


def recorded() -> BEiTAdapter:
    model = BEiTAdapter(**parity_cases.facts(CASE, "config"))
    model.load_state_dict(parity_cases.weights(CASE))
    return model.eval()


def tiny(**options) -> BEiTAdapter:
    torch.manual_seed(0)
    sizes = dict(embed_dim=12, depth=4, num_heads=2, window_attn=True, window_size=[3, 3, 3, 6])
    adapter = dict(deform_num_heads=2, conv_inplane=4, norm="BN", init_values=0.1)
    return BEiTAdapter(**{**sizes, **adapter, **options})


@pytest.mark.parametrize("case", [0, 1])
def test_features_equal_the_recorded_ones(case):
    images = torch.from_numpy(parity_cases.arrays(CASE, "inputs")[f"input_{case}"])
    with torch.no_grad():
        features = recorded()(images)
    outputs = parity_cases.arrays(CASE, "outputs")
    for i, name in enumerate(NAMES, start=1):
        expected = torch.from_numpy(outputs[f"out_{case}_f{i}"])
        torch.testing.assert_close(features[name], expected, rtol=1e-5, atol=2e-5)


def test_state_dict_has_the_published_names_in_the_published_order():
    weights, state = parity_cases.weights(CASE), recorded().state_dict()
    assert list(state) == list(weights)
    assert all(torch.equal(state[name], weights[name].to(state[name].dtype)) for name in weights)


def test_the_index_of_large_windows_is_written_once():
    sizes = {}
    for windows in ([8, 3, 3, 3], [8, 8, 8, 3]):
        file = io.BytesIO()
        torch.save(tiny(window_size=windows).state_dict(), file)
        sizes[windows.count(8)] = file.tell()
    index = 64 * 64 * 8  # bytes
    assert sizes[3] - sizes[1] < index


@pytest.mark.parametrize("size", [3, 6])
def test_position_bias_is_the_table_at_the_difference_of_positions(size):
    attention = Attention(8, 2, windowed=True, window_size=size)
    torch.nn.init.normal_(attention.relative_position_bias_table)
    bias = attention.position_bias(size, size)
    table = attention.relative_position_bias_table.view(2 * size - 1, 2 * size - 1, 2)
    for query in [(0, 0), (size - 1, 0), (1, 2)]:
        for key in [(0, 1), (2, 2), (size - 1, size - 1)]:
            expected = table[query[0] - key[0] + size - 1, query[1] - key[1] + size - 1]
            q, k = query[0] * size + query[1], key[0] * size + key[1]
            assert torch.equal(bias[:, q, k], expected)


def test_global_attention_takes_maps_of_any_size():
    model = tiny(window_attn=False, window_size=4)
    features = model(torch.randn(1, 3, 96, 160))
    assert features["res4"].shape == (1, 12, 6, 10)


def test_global_attention_resamples_its_table_smoothly():
    attention = Attention(8, 2, windowed=False, window_size=5)
    ramp = torch.linspace(-1, 1, 9)
    with torch.no_grad():
        attention.relative_position_bias_table.copy_(ramp.repeat(9)[:, None].expand(-1, 2))
    wide = attention.position_bias(5, 9)[0]  # bias grows with x of query minus x of key
    row = wide[:9, 0]  # queries of the first row against the first key
    assert row.diff().gt(0).all()
    assert attention.position_bias(5, 5)[0, 4, 0].item() == pytest.approx(1.0)


def test_absolute_position_embedding_is_resized_to_the_map():
    model = tiny(use_abs_pos_emb=True, img_size=64, use_rel_pos_bias=False)
    own = model._resized_position_embedding(4, 4)
    assert torch.equal(own.flatten(1, 2), model.pos_embed)
    wide = model._resized_position_embedding(4, 8)
    expected = F.interpolate(own.permute(0, 3, 1, 2), size=(4, 8), mode="bicubic")
    torch.testing.assert_close(wide, expected.permute(0, 2, 3, 1))
    assert model(torch.randn(1, 3, 64, 128))["res4"].shape == (1, 12, 4, 8)


@pytest.mark.parametrize("height, width", [(32, 32), (33, 61), (5, 70)])
def test_any_image_size_works(height, width):
    features = tiny()(torch.randn(2, 3, height, width))
    for i, name in enumerate(NAMES, start=2):
        assert features[name].shape == (2, 12, -(-height // 2**i), -(-width // 2**i))


def test_padding_is_that_of_the_model():
    model, image = tiny().eval(), torch.randn(1, 3, 40, 70)
    padded = F.pad(image, (0, 96 - 70, 0, 64 - 40))
    with torch.no_grad():
        own, given = model(image), model(padded)
    torch.testing.assert_close(own["res3"], given["res3"][..., :5, :9])


def test_an_empty_batch_has_empty_features():
    features = tiny()(torch.randn(0, 3, 33, 61))
    assert [tuple(f.shape) for f in features.values()] == [
        (0, 12, 9, 16),
        (0, 12, 5, 8),
        (0, 12, 3, 4),
        (0, 12, 2, 2),
    ]


def test_interactions_default_to_four_equal_parts():
    assert tiny(depth=8, window_size=3).interaction_indexes == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_extractors_alone_see_the_image_when_nothing_is_added():
    features = tiny(add_vit_feature=False, with_cffn=False)(torch.randn(1, 3, 32, 64))
    assert features["res5"].shape == (1, 12, 1, 2)


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(patch_size=14), "PATCH_SIZE is 14"),
        (dict(window_size=[3, 6]), "WINDOW_SIZE has 2 entries"),
        (dict(interaction_indexes=[[0, 1], [3, 3]]), "INTERACTION_INDEXES"),
        (dict(depth=3, window_size=3), "cannot be cut in four"),
        (dict(interaction_indexes=[0, 1, 2, 3]), "INTERACTION_INDEXES"),
        (dict(window_size=0), "WINDOW_SIZE"),
        (dict(num_heads=5), "NUM_HEADS"),
        (dict(deform_num_heads=5), "DEFORM_NUM_HEADS"),
        (dict(deform_ratio=0.01), "DEFORM_RATIO"),
        (dict(norm=""), "NORM is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_key(options, said):
    with pytest.raises(BackboneError, match=said):
        tiny(**options)


def attention_with_real_padding(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """The published formulation: pad the map with zero tokens, attend, cut the result."""
    size, (height, width) = attention.window_size, x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    return attention(x)[:, :height, :width]


@pytest.mark.parametrize("bias_table, qkv_bias", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("height, width", [(5, 7), (4, 9), (9, 4), (3, 2), (4, 8)])
def test_padding_counts_as_if_it_were_there(height, width, bias_table, qkv_bias):
    torch.manual_seed(0)
    options = dict(windowed=True, window_size=4, bias_table=bias_table, qkv_bias=qkv_bias)
    attention = Attention(8, 2, **options).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    results = []
    for attend in (attention, lambda x: attention_with_real_padding(attention, x)):
        x = torch.linspace(-1, 1, height * width * 16, dtype=torch.float64)
        x = x.view(2, height, width, 8).sin().requires_grad_()
        out = attend(x)
        parameters = [x, *attention.parameters()]
        results.append([out, *torch.autograd.grad((out**3).sum(), parameters)])
    for ours, published in zip(*results):
        torch.testing.assert_close(ours, published, rtol=1e-9, atol=1e-9)
