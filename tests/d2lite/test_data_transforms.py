"""Deterministic transforms: sizes, interpolation rules, coordinates, inverses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from detectron2.data import transforms as T

RNG = np.random.default_rng(0)
NEAREST = Image.Resampling.NEAREST


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 1), (8, 12, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_resizing_keeps_dtype_and_axes(shape, dtype):
    image = (RNG.random(shape) * 255).astype(dtype)
    resized = T.ResizeTransform(8, 12, 5, 20).apply_image(image)
    assert resized.shape == (5, 20, *shape[2:]) and resized.dtype == dtype


def test_uint8_is_resized_as_pillow_does():
    image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((13, 7), Image.Resampling.BILINEAR))
    assert np.array_equal(T.ResizeTransform(20, 30, 7, 13).apply_image(image), expected)


def test_floats_are_resized_as_torch_does():
    image = RNG.random((20, 30, 3))
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = F.interpolate(tensor, (7, 13), mode="bilinear", align_corners=False)[0]
    resized = T.ResizeTransform(20, 30, 7, 13).apply_image(image)
    np.testing.assert_allclose(resized, expected.permute(1, 2, 0).numpy(), rtol=1e-12)


# The last two round differently in float32, which torch computes in for small outputs only.
@pytest.mark.parametrize(
    "sizes",
    [
        *[(20, 30, 7, 13), (20, 30, 47, 91), (480, 640, 1024, 1365)],
        *[(77, 189, 27, 33), (114, 86, 106, 113)],
    ],
)
def test_float_labels_follow_torch_nearest(sizes):
    h, w, new_h, new_w = sizes
    labels = RNG.integers(0, 1000, (h, w)).astype(np.float64)
    expected = F.interpolate(torch.from_numpy(labels)[None, None], (new_h, new_w), mode="nearest")
    resized = T.ResizeTransform(*sizes).apply_segmentation(labels)
    assert np.array_equal(resized, expected[0, 0].numpy())


def test_uint8_labels_follow_pillow_nearest():
    labels = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(labels).resize((13, 7), NEAREST))
    assert np.array_equal(T.ResizeTransform(20, 30, 7, 13).apply_segmentation(labels), expected)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, bool])
def test_labels_of_any_integer_type_can_be_resized(dtype):
    labels = RNG.integers(0, 2, (20, 30)).astype(dtype)
    resized = T.ResizeTransform(20, 30, 7, 13).apply_segmentation(labels)
    expected = T.ResizeTransform(20, 30, 7, 13).apply_segmentation(labels.astype(np.float64))
    assert resized.dtype == dtype and np.array_equal(resized, expected)


def test_flipped_images_can_be_resized():
    for dtype in (np.uint8, np.float64):
        image = (RNG.random((8, 12, 3)) * 255).astype(dtype)
        resize = T.ResizeTransform(8, 12, 4, 6)
        flipped = resize.apply_image(image[:, ::-1])
        assert np.array_equal(flipped, resize.apply_image(image[:, ::-1].copy()))


def test_resizing_checks_the_input_size():
    with pytest.raises(AssertionError):
        T.ResizeTransform(8, 12, 4, 6).apply_image(np.zeros((12, 8), np.uint8))


def test_resizing_scales_coordinates_and_inverts():
    resize = T.ResizeTransform(10, 20, 5, 60)
    coords = np.array([[2.0, 4.0]])
    assert resize.apply_coords(coords.copy()).tolist() == [[6.0, 2.0]]
    back = resize.inverse().apply_coords(resize.apply_coords(coords.copy()))
    np.testing.assert_allclose(back, coords)
    assert resize.apply_box(np.array([[1.0, 2, 3, 4]])).tolist() == [[3, 1, 9, 2]]


def test_rotation_by_90_degrees_is_exact():
    image = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
    rotation = T.RotationTransform(6, 10, 90)
    assert np.array_equal(rotation.apply_image(image), np.rot90(image))
    corner = rotation.apply_coords(np.array([[0.0, 0.0], [10.0, 0.0]]))
    np.testing.assert_allclose(corner, [[0, 10], [0, 0]], atol=1e-9)


def test_rotation_without_expanding_keeps_the_size():
    rotation = T.RotationTransform(6, 10, 30, expand=False)
    assert rotation.apply_image(np.zeros((6, 10), np.uint8)).shape == (6, 10)
    np.testing.assert_allclose(rotation.apply_coords(np.array([[5.0, 3.0]])), [[5, 3]], atol=1e-9)
    with pytest.raises(NotImplementedError):
        rotation.inverse()


def test_an_expanding_rotation_inverts():
    rotation = T.RotationTransform(20, 30, 33)
    coords = RNG.random((5, 2)) * 20
    back = rotation.inverse().apply_coords(rotation.apply_coords(coords))
    np.testing.assert_allclose(back, coords, atol=0.51)  # the crop is by whole pixels


def test_rotating_labels_makes_no_new_labels():
    labels = RNG.choice(np.array([3, 7], dtype=np.uint8), (20, 30))
    rotated = T.RotationTransform(20, 30, 33).apply_segmentation(labels)
    assert set(np.unique(rotated)) <= {0, 3, 7}


def test_extent_cuts_and_scales():
    image = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    extent = T.ExtentTransform((2, 2, 6, 6), (8, 8), interp=NEAREST)
    assert np.array_equal(extent.apply_image(image), image[2:6, 2:6].repeat(2, 0).repeat(2, 1))
    np.testing.assert_allclose(extent.apply_coords(np.array([[2.0, 6.0]])), [[0, 8]])


def test_colour_transforms_leave_labels_and_coordinates():
    invert = T.ColorTransform(lambda image: 255 - image)
    labels = np.ones((2, 2), np.uint8)
    assert invert.apply_image(labels)[0, 0] == 254
    assert invert.apply_segmentation(labels) is labels
    assert isinstance(invert.inverse(), T.NoOpTransform)
    flipped = T.PILColorTransform(lambda image: image.point(lambda v: 255 - v))
    assert flipped.apply_image(labels)[0, 0] == 254
    with pytest.raises(ValueError):
        T.ColorTransform(3)


def test_fvcore_transforms_are_exported():
    crop = T.CropTransform(1, 2, 3, 4)
    assert crop.apply_image(np.zeros((9, 9))).shape == (4, 3)
    assert T.TransformList([T.TransformList([crop]), T.NoOpTransform()])[0] is crop


def test_rotated_boxes_follow_flips_and_resizing():
    boxes = np.array([[4.0, 5.0, 2.0, 1.0, 30.0]])
    assert T.HFlipTransform(10).apply_rotated_box(boxes.copy()).tolist() == [[6, 5, 2, 1, -30]]
    doubled = T.ResizeTransform(10, 10, 20, 20).apply_rotated_box(boxes.copy())
    np.testing.assert_allclose(doubled, [[8, 10, 4, 2, 30]])
