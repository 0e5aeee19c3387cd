"""Instances, boxes, masks and image lists."""

import copy
import pickle

import numpy as np
import pytest
import torch

from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    Keypoints,
    PolygonMasks,
    ROIMasks,
    RotatedBoxes,
    pairwise_ioa,
    pairwise_iou,
    polygons_to_bitmask,
)
from detectron2.structures.boxes import matched_pairwise_iou, pairwise_intersection

SQUARE = [np.array([1.0, 1, 4, 1, 4, 4, 1, 4])]


# -- Instances -------------------------------------------------------------------------------


@pytest.fixture
def three() -> Instances:
    return Instances(
        (4, 6),
        scores=torch.tensor([0.1, 0.2, 0.3]),
        names=["a", "b", "c"],
        boxes=Boxes(torch.eye(4)[:3]),
    )


def test_fields_are_attributes_and_private_names_are_not(three):
    three._note = "private"
    assert set(three.get_fields()) == {"scores", "names", "boxes"}
    assert three.has("scores") and not three.has("_note")
    three.remove("names")
    assert not three.has("names")


def test_image_size_is_read_only(three):
    assert three.image_size == (4, 6)
    with pytest.raises(AssertionError):  # taken for a field of another length
        three.image_size = (1, 2)


def test_unknown_field_is_named(three):
    with pytest.raises(AttributeError, match="Cannot find field 'masks' in the given Instances!"):
        _ = three.masks


def test_fields_must_have_one_length(three):
    with pytest.raises(AssertionError, match="length 2"):
        three.labels = torch.zeros(2)


@pytest.mark.parametrize(
    ("item", "names"),
    [(0, ["a"]), (-1, ["c"]), (slice(1, None), ["b", "c"])],
)
def test_indexing_keeps_the_object_axis(three, item, names):
    picked = three[item]
    assert picked.names == names
    assert picked.image_size == (4, 6)
    assert len(picked.boxes) == len(picked) == len(names)


def test_bool_masks_and_index_tensors_select(three):
    three.remove("names")
    assert three[three.scores > 0.15].scores.tolist() == pytest.approx([0.2, 0.3])
    assert three[torch.tensor([2, 0])].scores.tolist() == pytest.approx([0.3, 0.1])


@pytest.mark.parametrize("item", [3, -4])
def test_index_out_of_range(three, item):
    with pytest.raises(IndexError):
        three[item]


def test_empty_instances_have_no_length_and_nothing_iterates(three):
    with pytest.raises(NotImplementedError, match="Empty Instances"):
        len(Instances((1, 1)))
    with pytest.raises(NotImplementedError):
        iter(three)


def test_to_moves_what_can_be_moved(three):
    moved = three.to(torch.device("cpu"))
    assert moved is not three
    assert moved.names == ["a", "b", "c"]


def test_cat_joins_every_kind_of_field(three):
    joined = Instances.cat([three, three[:1]])
    assert len(joined) == 4
    assert joined.names == ["a", "b", "c", "a"]
    assert joined.boxes.tensor.shape == (4, 4)
    assert Instances.cat([three]) is three


def test_cat_refuses_other_sizes_and_types(three):
    with pytest.raises(AssertionError):
        Instances.cat([three, Instances((5, 5), scores=torch.zeros(1))])
    odd = Instances((1, 1), odd={1: 2})
    with pytest.raises(ValueError, match="Unsupported type"):
        Instances.cat([odd, odd])


def test_repr_counts_objects():
    text = repr(Instances((4, 6), ids=[7]))
    assert text == "Instances(num_instances=1, image_height=4, image_width=6, fields=[ids: [7]])"


def test_instances_survive_copying_and_pickling(three):
    for again in (copy.deepcopy(three), pickle.loads(pickle.dumps(three))):
        assert again.names == three.names and again.image_size == (4, 6)


# -- boxes -----------------------------------------------------------------------------------


def test_boxes_are_float32_n_by_4():
    assert Boxes([[0, 1, 2, 3]]).tensor.dtype == torch.float32
    assert Boxes(torch.zeros(0)).tensor.shape == (0, 4)
    assert Boxes([]).tensor.shape == (0, 4)
    with pytest.raises(AssertionError):
        Boxes(torch.zeros(2, 5))


def test_clip_nonempty_area_and_centers():
    boxes = Boxes([[-1.0, -2, 3, 9], [2, 2, 2, 5]])
    boxes.clip((4, 2))
    assert boxes.tensor.tolist() == [[0, 0, 2, 4], [2, 2, 2, 4]]
    assert boxes.area().tolist() == [8, 0]
    assert boxes.nonempty().tolist() == [True, False]
    assert boxes.get_centers()[0].tolist() == [1, 2]


def test_clip_refuses_nan():
    with pytest.raises(AssertionError, match="infinite or NaN"):
        Boxes([[0.0, 0, float("nan"), 1]]).clip((4, 4))


def test_scale_works_in_place():
    boxes = Boxes([[1.0, 1, 2, 2]])
    boxes.scale(2, 3)
    assert boxes.tensor.tolist() == [[2, 3, 4, 6]]


def test_box_indexing_keeps_two_dimensions():
    boxes = Boxes(torch.arange(8.0).view(2, 4))
    assert boxes[1].tensor.tolist() == [[4, 5, 6, 7]]
    assert len(boxes[torch.tensor([True, False])]) == 1
    assert next(iter(boxes)).tolist() == [0, 1, 2, 3]
    assert len(Boxes.cat([])) == 0 and len(Boxes.cat([boxes, boxes])) == 4


def test_overlaps():
    a, b = Boxes([[0.0, 0, 2, 2]]), Boxes([[1.0, 1, 3, 3], [5, 5, 6, 6], [5, 5, 5, 5]])
    assert pairwise_iou(a, b)[0].tolist() == pytest.approx([0.142857, 0, 0], abs=1e-6)
    assert pairwise_ioa(a, b)[0].tolist() == pytest.approx([0.25, 0, 0])
    assert pairwise_intersection(a, b)[0].tolist() == [1, 0, 0]
    assert matched_pairwise_iou(a, b[0]).tolist() == pytest.approx([0.142857], abs=1e-6)


def test_box_mode_keeps_the_type_of_its_input():
    xyxy, xywh = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
    converted = BoxMode.convert([1, 2, 3, 4], xyxy, xywh)
    assert converted == [1, 2, 2, 2] and all(type(x) is int for x in converted)
    assert BoxMode.convert((1.5, 2.0, 2.0, 2.0), xywh, xyxy) == (1.5, 2.0, 3.5, 4.0)
    array = np.array([[1.0, 2, 3, 4]])
    assert BoxMode.convert(array, xyxy, xywh).tolist() == [[1, 2, 2, 2]]
    assert array.tolist() == [[1, 2, 3, 4]]
    box = torch.tensor([1.0, 2, 3, 4])
    assert BoxMode.convert(box, xyxy, xyxy) is box


def test_relative_box_modes_are_refused():
    with pytest.raises(AssertionError):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)


def test_upright_boxes_become_rotated_ones_without_angle():
    flat = BoxMode.convert([2, 3, 4, 2], BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)
    assert flat == [4, 4, 4, 2, 0]
    many = BoxMode.convert(np.array([[0.0, 0.0, 3.0, 1.0]]), BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)
    assert many.tolist() == [[1.5, 0.5, 3.0, 1.0, 0.0]]


def test_rotated_box_becomes_its_upright_hull():
    hull = BoxMode.convert([5.0, 5.0, 4.0, 2.0, 90.0], BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    assert hull == pytest.approx([4, 3, 6, 7], abs=1e-5)
    assert len(RotatedBoxes(torch.zeros(2, 5))[0]) == 1


# -- masks -----------------------------------------------------------------------------------


def test_bit_mask_boxes_are_tight_and_exclusive():
    masks = torch.zeros(3, 5, 6)
    masks[0, 1:3, 2:4] = 1
    masks[2] = 1
    boxes = BitMasks(masks).get_bounding_boxes()
    assert boxes.tensor.tolist() == [[2, 1, 4, 3], [0, 0, 0, 0], [0, 0, 6, 5]]
    assert boxes.tensor.dtype == torch.float32
    assert BitMasks(masks).nonempty().tolist() == [True, False, True]


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_boxes_of_no_pixels(shape):
    assert BitMasks(torch.zeros(shape)).get_bounding_boxes().tensor.shape == (shape[0], 4)


def test_bit_mask_boxes_agree_with_a_search_pixel_by_pixel():
    masks = torch.rand(20, 17, 13, generator=torch.Generator().manual_seed(0)) > 0.97
    for mask, box in zip(masks, BitMasks(masks).get_bounding_boxes()):
        y, x = torch.where(mask)
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(y) else [0] * 4
        assert box.tolist() == [float(v) for v in expected]


def test_bit_mask_indexing_keeps_three_dimensions():
    masks = BitMasks(np.ones((3, 4, 5), dtype=np.uint8))
    assert masks.image_size == (4, 5)
    assert masks[0].tensor.shape == (1, 4, 5)
    assert len(masks[torch.tensor([True, False, True])]) == 2
    assert len(BitMasks.cat([masks, masks])) == 6
    with pytest.raises(AssertionError):
        BitMasks(torch.zeros(4, 5))


def test_polygon_is_rasterised_by_cocos_rule():
    expected = np.zeros((6, 6), dtype=bool)
    expected[1:4, 1:4] = True
    assert (polygons_to_bitmask(SQUARE, 6, 6) == expected).all()
    assert not polygons_to_bitmask([], 6, 6).any()
    assert BitMasks.from_polygon_masks(PolygonMasks([SQUARE]), 6, 6).tensor[0].sum() == 9
    assert BitMasks.from_polygon_masks([], 6, 6).tensor.shape == (0, 6, 6)


@pytest.mark.parametrize("bad", ["x", [SQUARE[0]], [[[1, 2, 3, 4]]], [[[1, 2, 3, 4, 5, 6, 7]]]])
def test_malformed_polygons_are_refused(bad):
    with pytest.raises(ValueError):
        PolygonMasks(bad)


def test_polygon_boxes_and_areas():
    two = [SQUARE[0], SQUARE[0] + 2]
    masks = PolygonMasks([two, [-SQUARE[0]], []])
    boxes = masks.get_bounding_boxes().tensor.tolist()
    assert boxes[0] == [1, 1, 6, 6]
    assert boxes[1] == [-4, -4, 0, 0]
    assert boxes[2] == [float("inf"), float("inf"), 0, 0]
    assert masks.area().tolist() == [18, 9, 0]
    assert masks.nonempty().tolist() == [True, True, False]


@pytest.mark.parametrize(
    "item", [[0, 2], torch.tensor([0, 2]), torch.tensor([True, False, True]), slice(0, 3, 2)]
)
def test_polygon_indexing(item):
    masks = PolygonMasks([SQUARE, [SQUARE[0] * 2], [SQUARE[0] * 3]])
    picked = masks[item]
    assert [float(p[0][0]) for p in picked] == [1, 3]
    assert len(masks[1]) == 1 and len(PolygonMasks.cat([masks, masks])) == 6


def test_polygon_and_bitmap_crops_agree():
    box = torch.tensor([[1.0, 1, 4, 4]])
    assert PolygonMasks([SQUARE]).crop_and_resize(box, 6).all()
    assert BitMasks.from_polygon_masks([SQUARE], 8, 8).crop_and_resize(box, 6).all()


def test_roi_masks_are_pasted_at_their_boxes():
    pasted = ROIMasks(torch.ones(1, 4, 4)).to_bitmasks(Boxes([[1.0, 2, 4, 5]]), 7, 8)
    assert pasted.get_bounding_boxes().tensor.tolist() == [[1, 2, 4, 5]]


def test_keypoints_are_n_by_k_by_3():
    points = Keypoints(np.zeros((2, 5, 3)))
    assert len(points) == 2 and points[0].tensor.shape == (1, 5, 3)
    with pytest.raises(AssertionError):
        Keypoints(np.zeros((2, 3)))


# -- image lists -----------------------------------------------------------------------------


def test_images_are_padded_at_the_right_and_bottom():
    a, b = torch.ones(3, 5, 7), torch.ones(3, 6, 4)
    images = ImageList.from_tensors([a, b], size_divisibility=4, pad_value=9.0)
    assert images.tensor.shape == (2, 3, 8, 8)
    assert images.image_sizes == [(5, 7), (6, 4)]
    assert images[1].shape == (3, 6, 4) and bool((images[1] == 1).all())
    assert bool((images.tensor[0, :, 5:] == 9).all())
    assert len(images) == 2


def test_a_single_image_and_no_divisor_need_no_padding():
    assert ImageList.from_tensors([torch.ones(5, 7)]).tensor.shape == (1, 5, 7)
    assert ImageList.from_tensors([torch.ones(3, 5, 7)], 8).tensor.shape == (1, 3, 8, 8)


def test_padding_constraints_ask_for_a_square():
    images = ImageList.from_tensors(
        [torch.ones(3, 5, 7)], padding_constraints={"square_size": 9, "size_divisibility": 4}
    )
    assert images.tensor.shape == (1, 3, 12, 12)


def test_image_list_refuses_nothing_and_mixed_channels():
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])
    with pytest.raises(AssertionError):
        ImageList.from_tensors([torch.ones(3, 2, 2), torch.ones(1, 2, 2)])
