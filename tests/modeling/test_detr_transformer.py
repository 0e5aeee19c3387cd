"""DETR's transformer: padding, norms, layouts."""

import pytest
import torch

from mask2former.modeling.transformer_decoder.transformer import (
    Transformer,
    activation_function,
    to_map,
    to_tokens,
)


def transformer(**options) -> Transformer:
    torch.manual_seed(0)
    defaults = dict(
        d_model=8, nhead=2, num_encoder_layers=2, num_decoder_layers=3, dim_feedforward=16
    )
    return Transformer(**{**defaults, **options}).eval()


def inputs(batch: int = 2, height: int = 3, width: int = 4):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 8, height, width)
    src, pos = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    return src, torch.randn(5, 8, generator=generator), pos


def test_tokens_put_together_give_the_map():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(to_map(to_tokens(x), 4, 5), x)


@pytest.mark.parametrize("every_layer, layers", [(True, 3), (False, 1)])
def test_outputs_of_every_layer_or_of_the_last(every_layer, layers):
    src, queries, pos = inputs()
    outputs, memory = transformer(return_intermediate_dec=every_layer)(src, None, queries, pos)
    assert outputs.shape == (layers, 2, 5, 8)
    assert memory.shape == src.shape


def test_last_of_all_outputs_is_the_only_output():
    src, queries, pos = inputs()
    every = transformer(return_intermediate_dec=True)(src, None, queries, pos)[0]
    only = transformer()(src, None, queries, pos)[0]
    torch.testing.assert_close(every[-1:], only)


@pytest.mark.parametrize("normalize_before", [False, True])
def test_padding_is_not_seen(normalize_before):
    model, (src, queries, pos) = transformer(normalize_before=normalize_before), inputs()
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[:, :, 3:] = True
    padded, memory = model(src, mask, queries, pos)
    cut, cut_memory = model(src[..., :3], None, queries, pos[..., :3])
    torch.testing.assert_close(padded, cut)
    torch.testing.assert_close(memory[..., :3], cut_memory)


def test_no_encoder_layers_leave_the_map_as_it_is():
    src, queries, pos = inputs()
    assert torch.equal(transformer(num_encoder_layers=0)(src, None, queries, pos)[1], src)


def test_layers_equal_those_of_pytorch():
    model, (src, queries, _) = transformer(), inputs()
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    own = model.encoder.layers[0]
    layer.load_state_dict(own.state_dict())
    tokens = to_tokens(src)
    torch.testing.assert_close(own(tokens, torch.zeros(1, 1, 8)), layer(tokens))

    layer = torch.nn.TransformerDecoderLayer(8, 2, 16, batch_first=True).eval()
    own = model.decoder.layers[0]
    layer.load_state_dict(own.state_dict())
    zero, queries = torch.zeros(1, 1, 8), queries.expand(2, -1, -1)
    torch.testing.assert_close(own(queries, tokens, zero, zero), layer(queries, tokens))


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="'swish'"):
        activation_function("swish")
