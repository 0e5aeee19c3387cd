"""The sine position embedding, against published values and its definition."""

import pytest
import torch

from mask2former.modeling.transformer_decoder.position_encoding import PositionEmbeddingSine


def test_published_values():
    embedding = PositionEmbeddingSine(128, normalize=True)(torch.zeros(1, 1, 3, 5))
    assert embedding.shape == (1, 256, 3, 5) and embedding.dtype == torch.float32
    assert embedding.sum().item() == pytest.approx(1864.777, abs=1e-3)
    assert embedding[0, 0, 1, 2].item() == pytest.approx(-0.8660247, abs=1e-6)
    assert embedding[0, 128, 1, 2].item() == pytest.approx(-0.5877847, abs=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_an_empty_mask_changes_nothing(normalize):
    encode, x = PositionEmbeddingSine(8, normalize=normalize), torch.zeros(2, 3, 4, 7)
    assert torch.equal(encode(x), encode(x, torch.zeros(2, 4, 7, dtype=torch.bool)))


def test_positions_are_relative_to_the_part_without_padding():
    encode = PositionEmbeddingSine(8, normalize=True)
    mask = torch.ones(1, 6, 9, dtype=torch.bool)
    mask[:, :4, :5] = False
    padded = encode(torch.zeros(1, 1, 6, 9), mask)
    torch.testing.assert_close(padded[:, :, :4, :5], encode(torch.zeros(1, 1, 4, 5)))


def test_scale_needs_normalisation():
    with pytest.raises(ValueError, match="normalize"):
        PositionEmbeddingSine(8, scale=1.0)


def test_training_can_follow_inference_mode():
    encode, x = PositionEmbeddingSine(2, normalize=True), torch.zeros(1, 1, 2, 2)
    with torch.inference_mode():
        encode(x)
    weight = torch.ones(1, requires_grad=True)
    (encode(x) * weight).sum().backward()
    assert weight.grad is not None
