"""Random augmentations: seeded draws in detectron2's order, and what they promise."""

import numpy as np
import pytest

from detectron2.data import transforms as T

IMAGE = np.zeros((480, 640, 3), np.uint8)


def find(tfms, kind):
    return [t for t in tfms.transforms if isinstance(t, kind)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((480, 640, 800, 1333), (800, 1067)),
        ((333, 500, 512, 2048), (512, 769)),
        ((683, 512, 640, 2560), (854, 640)),
        ((100, 1000, 800, 1333), (133, 1333)),
    ],
)
def test_shortest_edge_output_shapes(arguments, expected):
    assert T.ResizeShortestEdge.get_output_shape(*arguments) == expected


def test_large_scale_jitter_draws_as_detectron2():
    np.random.seed(0)
    augmentations = [
        T.RandomFlip(),
        T.ResizeScale(0.1, 2.0, 1024, 1024),
        T.FixedSizeCrop((1024, 1024)),
    ]
    expected = [
        # flip, size, crop x0, y0, pad right, bottom
        (False, (1120, 1494), (283, 58), (0, 0)),
        (False, (695, 927), (0, 0), (97, 329)),
        (True, (1378, 1837), (783, 341), (0, 0)),
    ]
    for flip, size, offset, padding in expected:
        image, tfms = T.apply_transform_gens(augmentations, IMAGE)
        (resize,), (crop,) = find(tfms, T.ResizeTransform), find(tfms, T.CropTransform)
        pads = [(p.x1, p.y1) for p in find(tfms, T.PadTransform)] or [(0, 0)]
        assert bool(find(tfms, T.HFlipTransform)) == flip
        assert (resize.new_h, resize.new_w) == size
        assert (crop.x0, crop.y0) == offset
        assert pads == [padding]
        assert image.shape == (1024, 1024, 3)


def test_category_constrained_crop_draws_as_detectron2():
    np.random.seed(0)
    labels = np.zeros((300, 400))
    labels[:, 200:] = 1
    aug_input = T.AugInput(IMAGE[:300, :400], sem_seg=labels)
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (100, 120), 0.75, 255)(aug_input)
    assert (crop.x0, crop.y0, crop.w, crop.h) == (88, 174, 120, 100)
    assert aug_input.sem_seg.shape == (100, 120)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float64])
def test_category_constraint_draws_alike_for_all_label_types(dtype):
    labels = np.random.default_rng(1).integers(0, 3, (30, 40)).repeat(10, 0).repeat(10, 1)
    labels[:150] = 255
    np.random.seed(3)
    aug = T.RandomCrop_CategoryAreaConstraint("absolute", (40, 40), 0.5, 255)
    crop = aug.get_transform(IMAGE[:300, :400], labels.astype(dtype))
    np.random.seed(3)
    reference = reference_crop(labels.astype(float), (40, 40), 0.5, 255)
    assert (crop.x0, crop.y0) == reference


def reference_crop(labels, size, max_area, ignored):
    """The rule in words: up to ten crops, until two labels and none dominates."""
    for _ in range(10):
        y0 = np.random.randint(labels.shape[0] - size[0] + 1)
        x0 = np.random.randint(labels.shape[1] - size[1] + 1)
        values, counts = np.unique(labels[y0 : y0 + size[0], x0 : x0 + size[1]], return_counts=True)
        counts = counts[values != ignored]
        if len(counts) > 1 and counts.max() < counts.sum() * max_area:
            break
    return x0, y0


def test_fractional_and_negative_labels_are_counted_too():
    labels = np.array([[-1.0, 0.5], [0.5, 70000.0]])
    aug = T.RandomCrop_CategoryAreaConstraint("absolute", (2, 2), 0.9, -1)
    assert aug.get_transform(np.zeros((2, 2), np.uint8), labels).w == 2


def test_the_constraint_needs_labels_only_when_there_is_one():
    aug_input = T.AugInput(IMAGE)
    T.RandomCrop_CategoryAreaConstraint("absolute", (100, 120), 1.0)(aug_input)
    assert aug_input.image.shape == (100, 120, 3)
    with pytest.raises(Exception, match=r"semantic|NoneType"):
        T.RandomCrop_CategoryAreaConstraint("absolute", (10, 12), 0.75)(aug_input)


def test_crop_sizes_draw_as_detectron2():
    np.random.seed(0)
    crop = T.RandomCrop("relative_range", (0.5, 0.5))
    assert tuple(crop.get_crop_size((300, 400))) == (232, 343)
    assert tuple(crop.get_crop_size((300, 400))) == (240, 309)


def test_crop_types():
    assert T.RandomCrop("relative", (0.5, 0.25)).get_crop_size((301, 400)) == (151, 100)
    assert T.RandomCrop("absolute", (500, 100)).get_crop_size((300, 400)) == (300, 100)
    h, w = T.RandomCrop("absolute_range", (50, 60)).get_crop_size((300, 55))
    assert 50 <= h <= 60 and 50 <= w <= 55
    with pytest.raises((ValueError, AssertionError)):
        T.RandomCrop("relativ", (0.5, 0.5))


def test_crops_draw_y_before_x():
    np.random.seed(5)
    crop = T.RandomCrop("absolute", (100, 100)).get_transform(IMAGE)
    np.random.seed(5)
    assert (crop.y0, crop.x0) == (np.random.randint(381), np.random.randint(541))


def test_shortest_edge_styles():
    np.random.seed(0)
    sizes = {
        T.ResizeShortestEdge((3, 5), sample_style="range").get_transform(IMAGE).new_h
        for _ in range(50)
    }
    assert sizes == {3, 4, 5}
    sizes = {
        T.ResizeShortestEdge((3, 5), sample_style="choice").get_transform(IMAGE).new_h
        for _ in range(50)
    }
    assert sizes == {3, 5}
    assert T.ResizeShortestEdge(240).get_transform(IMAGE).new_w == 320
    assert isinstance(T.ResizeShortestEdge(0).get_transform(IMAGE), T.NoOpTransform)


def test_flip_needs_exactly_one_direction():
    with pytest.raises(ValueError):
        T.RandomFlip(horizontal=True, vertical=True)
    with pytest.raises(ValueError):
        T.RandomFlip(horizontal=False, vertical=False)
    flip = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(IMAGE)
    assert isinstance(flip, T.VFlipTransform)


def test_resize_scale_rounds_half_to_even():
    tfm = T.ResizeScale(1.0, 1.0, 5, 5).get_transform(np.zeros((2, 1), np.uint8))
    assert (tfm.new_h, tfm.new_w) == (5, 2)


def test_padding_values_of_the_fixed_size_crop():
    aug_input = T.AugInput(np.zeros((4, 6, 3), np.uint8), sem_seg=np.zeros((4, 6), np.uint8))
    T.FixedSizeCrop((8, 8), seg_pad_value=200)(aug_input)
    assert aug_input.image.shape == (8, 8, 3) and aug_input.sem_seg.shape == (8, 8)
    assert (aug_input.image[4:] == 128).all() and (aug_input.sem_seg[:, 6:] == 200).all()
    assert T.FixedSizeCrop((8, 8), pad=False)(aug_input).apply_image(IMAGE).shape == (8, 8, 3)


def test_resize_to_a_fixed_or_listed_size():
    assert T.apply_augmentations([T.Resize(10)], IMAGE)[0].shape == (10, 10, 3)
    assert T.apply_augmentations([T.Resize((10, 20))], IMAGE)[0].shape == (10, 20, 3)
    shape = T.apply_augmentations([T.RandomResize([(4, 5), (6, 7)])], IMAGE)[0].shape[:2]
    assert shape in {(4, 5), (6, 7)}


def test_colour_augmentations_blend_as_said():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.random.seed(0)
    w = np.random.uniform(0.5, 1.5)
    targets = {
        T.RandomBrightness: 0.0,
        T.RandomContrast: image.mean(),
        T.RandomSaturation: (image @ [0.299, 0.587, 0.114])[..., None],
    }
    for augmentation, target in targets.items():
        np.random.seed(0)
        changed, _ = T.apply_augmentations([augmentation(0.5, 1.5)], image)
        expected = np.clip((1 - w) * target + w * image.astype(np.float32), 0, 255)
        assert np.abs(changed - expected).max() < 1.01 and changed.dtype == np.uint8


def test_lighting_moves_all_pixels_alike():
    image = np.full((2, 2, 3), 100.0)
    changed, _ = T.apply_augmentations([T.RandomLighting(0.1)], image)
    assert np.ptp(changed[..., 0]) == 0 and not np.array_equal(changed, image)


def test_rotation_by_range_and_choice():
    rotation = T.RandomRotation([10, 20], expand=False, center=[[0.4, 0.4], [0.6, 0.6]])
    tfm = rotation.get_transform(IMAGE)
    assert 10 <= tfm.angle <= 20 and 0.4 * 640 <= tfm.center[0] <= 0.6 * 640
    tfm = T.RandomRotation([90, 180], sample_style="choice").get_transform(IMAGE)
    assert tfm.angle in (90, 180)
    assert isinstance(T.RandomRotation(360).get_transform(IMAGE), T.NoOpTransform)


def test_random_apply():
    always = T.RandomApply(T.VFlipTransform(480), 1.0)
    assert isinstance(T.apply_augmentations([always], IMAGE)[1][0], T.VFlipTransform)
    never = T.RandomApply(T.RandomFlip(1.0), 0.0)
    assert isinstance(T.apply_augmentations([never], IMAGE)[1][0], T.NoOpTransform)


def test_random_extent_covers_the_drawn_rectangle():
    tfm = T.RandomExtent((0.5, 0.5), (0, 0)).get_transform(IMAGE)
    assert tfm.src_rect == (160, 120, 480, 360) and tfm.output_size == (240, 320)


def test_min_iou_crop_keeps_a_box_centre():
    np.random.seed(0)
    boxes = np.array([[100.0, 100, 300, 300], [400, 300, 500, 400]])
    for _ in range(20):
        tfm = T.MinIoURandomCrop().get_transform(IMAGE, boxes)
        if isinstance(tfm, T.CropTransform):
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2 - (tfm.x0, tfm.y0)
            assert ((centers > 0) & (centers < (tfm.w, tfm.h))).all(1).any()
    assert isinstance(T.MinIoURandomCrop().get_transform(IMAGE, None), T.NoOpTransform)


class Custom(T.Augmentation):
    def __init__(self, size=3, name="x"):
        self._init(locals())

    def get_transform(self, image, sem_seg, extra):
        return T.NoOpTransform()


def test_arguments_are_looked_up_on_the_input():
    aug_input = T.AugInput(IMAGE, sem_seg=IMAGE[..., 0])
    with pytest.raises(AttributeError, match="extra"):
        Custom()(aug_input)
    aug_input.extra = 1
    assert isinstance(Custom()(aug_input), T.NoOpTransform)


def test_a_variadic_get_transform_is_refused():
    class Variadic(T.Augmentation):
        def get_transform(self, image, *args):
            return T.NoOpTransform()

    with pytest.raises(TypeError):
        Variadic()(T.AugInput(IMAGE))


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(Custom(size=4)) == "Custom(size=4)"
    assert "prob=0.3" in repr(T.AugmentationList([T.RandomFlip(0.3)]))


def test_an_aug_input_is_changed_in_place_with_all_it_holds():
    aug_input = T.AugInput(
        IMAGE, boxes=np.array([[0.0, 0, 64, 48]]), sem_seg=np.zeros((480, 640), np.uint8)
    )
    same, tfms = T.apply_augmentations([T.Resize((48, 64)), T.HFlipTransform(64)], aug_input)
    assert same is aug_input and len(tfms) == 2
    assert aug_input.image.shape == (48, 64, 3) and aug_input.sem_seg.shape == (48, 64)
    np.testing.assert_allclose(aug_input.boxes, [[57.6, 0, 64, 4.8]])


@pytest.mark.parametrize("image", [[[1]], np.zeros((2, 2), np.int64), np.zeros(3, np.uint8)])
def test_an_aug_input_wants_an_image(image):
    with pytest.raises(AssertionError):
        T.AugInput(image)


def test_old_names_are_the_new_things():
    assert T.TransformGen is T.Augmentation and T.StandardAugInput is T.AugInput
    assert T.apply_transform_gens is T.apply_augmentations
