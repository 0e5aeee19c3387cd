"""Helpers under their published names."""

import pytest
import torch

from mask2former.utils.misc import is_dist_avail_and_initialized, nested_tensor_from_tensor_list


def test_maps_of_different_sizes_are_padded_to_one_batch():
    images = [torch.ones(3, 2, 5), torch.ones(3, 4, 3)]
    tensors, mask = nested_tensor_from_tensor_list(images).decompose()
    assert tensors.shape == (2, 3, 4, 5) and mask.shape == (2, 4, 5)
    assert torch.equal(mask, tensors[:, 0] == 0)
    assert not mask[0, :2].any() and mask[0, 2:].all() and mask[1, :, 3:].all()


def test_only_maps_can_be_batched():
    with pytest.raises(ValueError, match=r"\[\(2, 2\)\]"):
        nested_tensor_from_tensor_list([torch.ones(2, 2)])


def test_one_process_takes_part_in_no_group():
    assert is_dist_avail_and_initialized() is False
