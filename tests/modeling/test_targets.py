"""Ground truth stays compact and keeps its place in a batch."""

import torch

from mask2former.modeling.targets import PackedTargets


def test_images_of_different_size_are_padded_on_the_right_and_bottom():
    packed = PackedTargets(
        [
            {"labels": torch.tensor([1, 2]), "masks": torch.ones(2, 3, 5, dtype=torch.bool)},
            {"labels": torch.tensor([0]), "masks": torch.ones(1, 4, 2, dtype=torch.bool)},
        ]
    )
    assert packed.labels.tolist() == [1, 2, 0]
    assert packed.offsets == [0, 2]
    assert packed.masks.dtype == torch.bool
    assert packed.size == (4, 5)
    assert packed.sizes == [(3, 5), (4, 2)]
    assert packed.masks.shape == (3, 6, 7)  # with a border of zeros
    assert packed.masks[:2, 1:4, 1:6].all()
    assert packed.masks.flatten(1).sum(1).tolist() == [15, 15, 8]
    assert torch.equal(packed.masks_of(1), packed.masks[2:])


def test_integer_masks_become_bool():
    target = {"labels": torch.tensor([0]), "masks": torch.tensor([[[0, 2]]])}
    assert PackedTargets([target]).masks[0, 1].tolist() == [False, False, True, False]


def test_packing_twice_is_packing_once():
    packed = PackedTargets([{"labels": torch.tensor([0]), "masks": torch.ones(1, 2, 2)}])
    assert PackedTargets.of(packed) is packed
