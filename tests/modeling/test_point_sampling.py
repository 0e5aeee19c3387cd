"""Points are sampled as grid_sample would, from compact masks and from feature maps."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.point_sampling import sample_features, sample_masks


def by_grid_sample(masks: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    grid = 2 * points.expand(len(masks), -1, -1)[:, :, None] - 1
    sampled = F.grid_sample(masks[:, None].to(points.dtype), grid, align_corners=False)
    return sampled[:, 0, :, 0]


def bordered(masks: torch.Tensor) -> torch.Tensor:
    return F.pad(masks, (1, 1, 1, 1))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64])
def test_shared_points(dtype):
    torch.manual_seed(0)
    masks = (torch.rand(4, 9, 13) > 0.5).to(dtype)
    points = torch.rand(50, 2, dtype=torch.float64)
    torch.testing.assert_close(
        sample_masks(bordered(masks), (9, 13), points), by_grid_sample(masks, points[None])
    )


def test_points_of_their_own():
    torch.manual_seed(0)
    masks = torch.rand(4, 9, 13) > 0.5
    points = torch.rand(6, 50, 2, dtype=torch.float64)
    rows = torch.tensor([3, 0, 0, 2, 1, 3])
    expected = by_grid_sample(masks[rows], points)
    torch.testing.assert_close(sample_masks(bordered(masks), (9, 13), points, rows=rows), expected)


def test_outside_of_the_image_is_background():
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.0], [0.5, 0.5]])
    assert sample_masks(bordered(masks), (4, 4), points).tolist() == [[0.25, 0.25, 0.5, 1.0]]


def test_point_sample_values_of_the_contract():
    ramp = torch.arange(16.0).view(1, 4, 4)
    points = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.125, 0.125], [1.0, 1.0]])
    assert sample_masks(bordered(ramp), (4, 4), points).tolist() == [[0.0, 7.5, 0.0, 3.75]]


def test_a_smaller_image_in_a_padded_batch_is_sampled_by_its_own_size():
    torch.manual_seed(0)
    masks = torch.rand(3, 6, 7) > 0.5
    points = torch.rand(40, 2, dtype=torch.float64)
    padded = bordered(F.pad(masks, (0, 5, 0, 4)))
    expected = by_grid_sample(masks, points[None])
    torch.testing.assert_close(sample_masks(padded, (6, 7), points), expected)


def test_features_at_points_border_included():
    torch.manual_seed(0)
    features = torch.randn(4, 6, 7, dtype=torch.float64)
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 1.0]], dtype=torch.float64)
    points = torch.cat([torch.rand(40, 2, dtype=torch.float64), corners])
    expected = by_grid_sample(features, points[None]).T
    torch.testing.assert_close(sample_features(features, points), expected)
