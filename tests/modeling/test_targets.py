"""Ground truth stays compact and is sampled like grid_sample would."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.targets import PackedTargets, sample_masks


def by_grid_sample(masks: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    grid = 2 * points.expand(len(masks), -1, -1)[:, :, None] - 1
    sampled = F.grid_sample(masks[:, None].to(points.dtype), grid, align_corners=False)
    return sampled[:, 0, :, 0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64])
def test_shared_points(dtype):
    torch.manual_seed(0)
    masks = (torch.rand(4, 9, 13) > 0.5).to(dtype)
    points = torch.rand(50, 2, dtype=torch.float64)
    torch.testing.assert_close(sample_masks(masks, points), by_grid_sample(masks, points[None]))


def test_points_of_their_own():
    torch.manual_seed(0)
    masks = torch.rand(4, 9, 13) > 0.5
    points = torch.rand(6, 50, 2, dtype=torch.float64)
    rows = torch.tensor([3, 0, 0, 2, 1, 3])
    expected = by_grid_sample(masks[rows], points)
    torch.testing.assert_close(sample_masks(masks, points, rows=rows), expected)


def test_outside_of_the_image_is_background():
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.0], [0.5, 0.5]])
    assert sample_masks(masks, points).tolist() == [[0.25, 0.25, 0.5, 1.0]]


def test_point_sample_values_of_the_contract():
    ramp = torch.arange(16.0).view(1, 4, 4)
    points = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.125, 0.125], [1.0, 1.0]])
    assert sample_masks(ramp, points).tolist() == [[0.0, 7.5, 0.0, 3.75]]


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
    assert packed.masks.shape == (3, 4, 5)
    assert packed.masks.flatten(1).sum(1).tolist() == [15, 15, 8]


def test_integer_masks_become_bool():
    target = {"labels": torch.tensor([0]), "masks": torch.tensor([[[0, 2]]])}
    assert PackedTargets([target]).masks.tolist() == [[[False, True]]]
