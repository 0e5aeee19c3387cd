"""Augmenting without pixels first gives the bytes of detectron2's ordinary path."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from mask2former.data.dataset_mappers import lazy_augmentation
from mask2former.data.dataset_mappers.lazy_augmentation import augment
from mask2former.data.dataset_mappers.separable import AxisIndices, render_image, shape_after


def jitter(side: int) -> list:
    return [T.RandomFlip(), T.ResizeScale(0.1, 2.0, side, side), T.FixedSizeCrop((side, side))]


LISTS = {
    "large-scale jitter": jitter(130),
    "category crop": [
        T.ResizeShortestEdge([60, 90, 200], 300, "choice"),
        T.RandomCrop_CategoryAreaConstraint("absolute", (50, 70), 0.4, 255),
        T.RandomFlip(),
    ],
    "range and vertical flip": [
        T.ResizeShortestEdge((40, 240), 300, "range"),
        T.RandomCrop("relative_range", (0.3, 0.3)),
        T.RandomFlip(horizontal=False, vertical=True),
    ],
    "resize to a fixed shape": [T.Resize((77, 203)), T.NoOpTransform(), T.RandomFlip()],
}


def example(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    height, width = rng.integers(30, 200, 2)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    coarse = rng.integers(0, 9, (height // 9 + 1, width // 9 + 1))
    labels = coarse.repeat(9, 0).repeat(9, 1)[:height, :width].astype(np.uint8)
    labels[:4] = 255
    ids = labels.astype(np.int32) * 60001 + 3
    rgb = np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], -1).astype(np.uint8)
    return image, labels, ids, rgb


@pytest.mark.parametrize("name", LISTS)
def test_same_pixels_labels_ids_and_masks_as_detectron2(name, seeded_numpy):
    rng = np.random.default_rng(0)
    for seed in range(25):
        image, labels, ids, rgb = example(rng)
        np.random.seed(seed)
        view = augment(LISTS[name], image, labels)
        np.random.seed(seed)
        plain = T.AugInput(image, sem_seg=labels.astype("double"))
        plain, transforms = T.apply_transform_gens(LISTS[name], plain)

        np.testing.assert_array_equal(view.image_tensor().numpy(), plain.image.transpose(2, 0, 1))
        np.testing.assert_array_equal(view.label_map(labels), plain.sem_seg.astype(np.int64))
        coded = transforms.apply_segmentation(rgb).astype(np.int64) @ [1, 256, 65536]
        inside = view.segments(np.ones_like(ids)) == 1
        np.testing.assert_array_equal(view.segments(ids)[inside], coded[inside])
        mask = (labels == 3).astype(np.uint8)
        expected = transforms.apply_segmentation(mask)
        np.testing.assert_array_equal(view.mask(mask)[inside], expected[inside])
        assert not view.mask(mask)[~inside].any()
        state = np.random.get_state()[1].copy()
        np.random.seed(seed)
        augment(LISTS[name], image, labels)
        np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_an_augmentation_that_looks_at_pixels_takes_the_ordinary_path(seeded_numpy):
    image, labels, ids, _ = example(np.random.default_rng(1))
    augmentations = [T.RandomContrast(0.5, 1.5), *jitter(100)]
    view = augment(augmentations, image, labels)
    np.random.seed(0)
    plain, _ = T.apply_transform_gens(augmentations, T.AugInput(image, sem_seg=labels * 1.0))
    np.testing.assert_array_equal(view.image, plain.image)
    np.testing.assert_array_equal(view.label_map(labels), plain.sem_seg)
    assert view.segments(ids).shape == (100, 100)


def test_pixels_are_not_touched_while_augmentations_draw(monkeypatch, seeded_numpy):
    seen = []
    real = T.ResizeScale.get_transform
    monkeypatch.setattr(
        T.ResizeScale, "get_transform", lambda self, image: seen.append(image) or real(self, image)
    )
    augment(jitter(64), np.zeros((50, 60, 3), np.uint8))
    assert [image.strides for image in seen] == [(0, 0, 0)]


@pytest.mark.parametrize("interp", [2, 3])
def test_enlarging_only_what_the_crop_keeps_gives_the_same_bytes(interp):
    rng = np.random.default_rng(2)
    for _ in range(20):
        h, w = (int(v) for v in rng.integers(20, 90, 2))
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        nh, nw = int(h * rng.uniform(1, 4)), int(w * rng.uniform(0.5, 4))
        ch, cw = int(rng.integers(1, nh + 1)), int(rng.integers(1, nw + 1))
        y0, x0 = int(rng.integers(nh - ch + 1)), int(rng.integers(nw - cw + 1))
        resize, crop = T.ResizeTransform(h, w, nh, nw, interp), T.CropTransform(x0, y0, cw, ch)
        expected = crop.apply_image(resize.apply_image(image))
        np.testing.assert_array_equal(render_image(image, [resize, crop]), expected)


def test_colour_jitter_changes_the_image_once_and_no_label(seeded_numpy):
    image, labels, _, _ = example(np.random.default_rng(3))
    calls = []

    class Counting(ColorAugSSDTransform):
        def apply_image(self, img, interp=None):
            calls.append(1)
            return super().apply_image(img)

    view = augment([Counting(img_format="RGB")], image, labels)
    np.testing.assert_array_equal(view.label_map(labels), labels)
    assert calls == [1]


# detectron2_api.md section 21, obtained from the originals: flip, size, crop offset and padding.
RECORDED = [
    (False, (1120, 1494), (283, 58), (0, 0)),
    (False, (695, 927), (0, 0), (97, 329)),
    (True, (1378, 1837), (783, 341), (0, 0)),
]


def test_seeded_jitter_draws_the_recorded_values(seeded_numpy):
    for flip, size, offset, padding in RECORDED:
        view = augment(jitter(1024), np.zeros((480, 640, 3), np.uint8))
        steps = view.transforms.transforms
        assert any(isinstance(s, T.HFlipTransform) for s in steps) is flip
        resize = next(s for s in steps if isinstance(s, T.ResizeTransform))
        assert (resize.new_h, resize.new_w) == size
        crop = next(s for s in steps if isinstance(s, T.CropTransform))
        assert (crop.x0, crop.y0) == offset
        pad = [s for s in steps if isinstance(s, T.PadTransform)]
        assert (pad[0].x1, pad[0].y1) == padding if pad else padding == (0, 0)
        assert view.shape == (1024, 1024)


def test_seeded_category_crop_draws_the_recorded_values(seeded_numpy):
    labels = np.zeros((300, 400), np.uint8)
    labels[:, 200:] = 1
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (100, 120), 0.75, 255)
    view = augment([crop], np.zeros((300, 400, 3), np.uint8), labels)
    step = view.transforms.transforms[0]
    assert (step.x0, step.y0, step.w, step.h) == (88, 174, 120, 100)


def test_padding_of_label_maps_takes_the_transform_s_own_value():
    indices = AxisIndices.along([T.PadTransform(1, 0, 2, 1, 4, 3, 0, 9)], 3, 4, "torch")
    gathered = indices.gather(np.ones((3, 4), np.uint8), fill=None)
    expected = T.PadTransform(1, 0, 2, 1, 4, 3, 0, 9).apply_segmentation(np.ones((3, 4), np.uint8))
    np.testing.assert_array_equal(gathered, expected)


@pytest.mark.parametrize("sizes", [(77, 189, 27, 33), (114, 86, 106, 113)])
def test_labels_are_resized_with_torch_s_roundings_at_any_size(sizes):
    h, w, new_h, new_w = sizes
    labels = np.arange(h * w).reshape(h, w)
    plane = torch.from_numpy(labels).double()[None, None]
    expected = F.interpolate(plane, (new_h, new_w), mode="nearest")[0, 0].long().numpy()
    indices = AxisIndices.along([T.ResizeTransform(*sizes)], h, w, rule="torch")
    np.testing.assert_array_equal(indices.gather(labels, fill=None), expected)


def test_shapes_are_predicted_for_every_known_transform():
    image = np.zeros((20, 30, 3), np.uint8)
    for step in (
        T.HFlipTransform(30),
        T.VFlipTransform(20),
        T.NoOpTransform(),
        T.ResizeTransform(20, 30, 7, 9, 2),
        T.CropTransform(25, 4, 10, 10),
        T.PadTransform(1, 2, 3, 4),
    ):
        assert shape_after(step, image.shape) == step.apply_image(image).shape


def test_nested_transform_lists_are_flattened_in_order():
    inner = T.TransformList([T.HFlipTransform(5), T.VFlipTransform(5)])
    steps = lazy_augmentation.flatten(T.TransformList([T.NoOpTransform(), inner]))
    names = [type(s).__name__ for s in steps if not isinstance(s, T.NoOpTransform)]
    assert names == ["HFlipTransform", "VFlipTransform"]
