"""Annotations through transforms to Instances, and the default mapper on files."""

import logging

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

import detectron2
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks

only_d2lite = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="better than detectron2"
)
SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]


def annotation(**changes):
    base = {"bbox": [2.0, 1.0, 4.0, 4.0], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 3}
    return {**base, "segmentation": [list(SQUARE)], **changes}


def rle(mask):
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))


def test_boxes_are_transformed_and_clipped():
    ann = annotation()
    out = utils.transform_instance_annotations(ann, T.CropTransform(3, 2, 5, 6), (6, 5))
    assert out is ann and out["bbox_mode"] == BoxMode.XYXY_ABS
    assert out["bbox"].tolist() == [0, 0, 3, 3]
    enlarged = [T.ResizeTransform(8, 10, 16, 20)]
    out = utils.transform_instance_annotations(annotation(), enlarged, (16, 11))
    assert out["bbox"].tolist() == [4, 2, 11, 10]


def test_polygons_become_flat_arrays_and_the_source_stays():
    source = [np.array(SQUARE)]
    out = utils.transform_instance_annotations(
        annotation(segmentation=source), T.HFlipTransform(10), (8, 10)
    )
    assert out["segmentation"][0].tolist() == [8, 1, 4, 1, 4, 5, 8, 5]


@only_d2lite
def test_whole_numbers_are_not_truncated():
    ann = annotation(bbox=[1, 1, 4, 4], segmentation=[[1, 1, 5, 1, 5, 5]])
    out = utils.transform_instance_annotations(ann, T.ResizeTransform(8, 8, 12, 12), (12, 12))
    assert out["segmentation"][0].tolist() == [1.5, 1.5, 7.5, 1.5, 7.5, 7.5]
    assert out["bbox"].tolist() == [1.5, 1.5, 7.5, 7.5]


def test_rle_becomes_a_mask_of_the_new_size():
    mask = np.zeros((8, 10), np.uint8)
    mask[1:5, 2:6] = 1
    out = utils.transform_instance_annotations(
        annotation(segmentation=rle(mask)), T.ResizeTransform(8, 10, 16, 20), (16, 20)
    )
    assert np.array_equal(out["segmentation"], mask.repeat(2, 0).repeat(2, 1))


def test_rle_of_another_size_and_other_types_are_errors():
    with pytest.raises(AssertionError):
        utils.transform_instance_annotations(
            annotation(segmentation=rle(np.ones((4, 4)))), T.NoOpTransform(), (8, 10)
        )
    with pytest.raises(ValueError, match="tuple"):
        utils.transform_instance_annotations(
            annotation(segmentation=(1, 2)), T.NoOpTransform(), (8, 10)
        )


def test_keypoints_flip_sides_and_vanish_outside():
    keypoints = [1, 1, 2, 9, 1, 2, 3, 30, 2]
    out = utils.transform_keypoint_annotations(
        keypoints, T.TransformList([T.HFlipTransform(10)]), (8, 10), np.array([1, 0, 2])
    )
    assert out.tolist() == [[1, 1, 2], [9, 1, 2], [0, 0, 0]]
    with pytest.raises(AssertionError):
        utils.transform_keypoint_annotations(
            keypoints, T.TransformList([T.HFlipTransform(10)]), (8, 10)
        )
    with pytest.raises(ValueError):
        utils.transform_keypoint_annotations(
            keypoints, T.TransformList([]), (8, 10), np.array([1, 0])
        )


def test_flip_indices_come_from_the_metadata():
    indices = list(utils.create_keypoint_hflip_indices("keypoints_coco_2017_val"))
    assert indices == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def test_annotations_become_instances():
    annotations = [annotation(), annotation(category_id=1, bbox=[0, 0, 1, 1])]
    polygons = utils.annotations_to_instances(annotations, (8, 10))
    assert polygons.gt_classes.tolist() == [3, 1] and polygons.gt_classes.dtype == torch.int64
    assert polygons.gt_boxes.tensor.tolist() == [[2, 1, 6, 5], [0, 0, 1, 1]]
    assert isinstance(polygons.gt_masks, PolygonMasks)
    assert polygons.image_size == (8, 10)


def test_bit_masks_come_from_polygons_rle_and_arrays():
    array = np.zeros((8, 10), np.uint8)
    array[1:5, 2:6] = 1
    segmentations = [[list(SQUARE)], rle(array), array]
    annotations = [annotation(segmentation=s) for s in segmentations]
    masks = utils.annotations_to_instances(annotations, (8, 10), "bitmask").gt_masks
    assert isinstance(masks, BitMasks) and masks.tensor.dtype == torch.bool
    for mask in masks.tensor.numpy():
        assert np.array_equal(mask, array.astype(bool))


def test_polygon_format_refuses_masks():
    with pytest.raises(ValueError, match="mask_format=='polygon'"):
        utils.annotations_to_instances([annotation(segmentation=np.ones((8, 10)))], (8, 10))


def test_no_annotations_give_empty_instances_without_masks():
    empty = utils.annotations_to_instances([], (8, 10), "bitmask")
    assert len(empty) == 0 and empty.gt_boxes.tensor.shape == (0, 4)
    assert empty.gt_classes.dtype == torch.int64 and not empty.has("gt_masks")


def test_empty_instances_are_filtered_by_box_and_by_mask():
    flat = annotation(bbox=[1, 1, 0, 4])
    hidden = annotation(segmentation=np.zeros((8, 10), np.uint8))
    instances = utils.annotations_to_instances([annotation(), flat, hidden], (8, 10), "bitmask")
    assert len(utils.filter_empty_instances(instances)) == 1
    assert len(utils.filter_empty_instances(instances, by_mask=False)) == 2
    kept, mask = utils.filter_empty_instances(instances, by_box=False, return_mask=True)
    assert len(kept) == 2 and mask.tolist() == [True, True, False]
    with pytest.raises(AssertionError):
        utils.filter_empty_instances(instances, by_box=False, by_mask=False)


def test_a_crop_around_an_instance_contains_its_centre():
    ann = annotation(bbox=[30, 40, 4, 4])
    np.random.seed(0)
    for _ in range(20):
        crop = utils.gen_crop_transform_with_instance((20, 30), (60, 80), ann)
        x, y = crop.apply_coords(np.array([[32.0, 42.0]]))[0]
        assert 0 <= x <= 30 and 0 <= y <= 20
        assert crop.apply_image(np.zeros((60, 80))).shape == (20, 30)


def test_data_sets_must_agree_on_metadata():
    for name, value in (("agree_a", 1), ("agree_b", 1), ("agree_c", 2)):
        MetadataCatalog.get(name).key = value
    try:
        utils.check_metadata_consistency("key", ["agree_a", "agree_b"])
        with pytest.raises(ValueError):
            utils.check_metadata_consistency("key", ["agree_a", "agree_c"])
        with pytest.raises(AttributeError):
            utils.check_metadata_consistency("other", ["agree_a", "agree_c"])
    finally:
        for name in ("agree_a", "agree_b", "agree_c"):
            MetadataCatalog.remove(name)


def test_default_augmentations_by_config():
    cfg = get_cfg()
    resize, flip = utils.build_augmentation(cfg, True)
    assert isinstance(resize, T.ResizeShortestEdge) and not resize.is_range
    assert flip.horizontal and not flip.vertical
    cfg.INPUT.RANDOM_FLIP = "vertical"
    assert utils.build_augmentation(cfg, True)[1].vertical
    cfg.INPUT.RANDOM_FLIP = "none"
    assert len(utils.build_augmentation(cfg, True)) == 1
    (resize,) = utils.build_transform_gen(cfg, False)
    assert resize.max_size == cfg.INPUT.MAX_SIZE_TEST


@pytest.fixture
def record(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    Image.fromarray(image[:, :, 0]).save(tmp_path / "s.png")
    return {
        "file_name": str(tmp_path / "x.png"),
        "sem_seg_file_name": str(tmp_path / "s.png"),
        "image_id": 1,
        "annotations": [annotation(), annotation(iscrowd=1), annotation(bbox=[0, 0, 0, 0])],
    }


def small_config():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (16,)
    cfg.INPUT.MIN_SIZE_TEST = 16
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.MODEL.MASK_ON = True
    return cfg


def test_the_training_mapper_makes_tensors(record):
    mapped = DatasetMapper(small_config(), True)(record)
    assert mapped["image"].shape == (3, 16, 20) and mapped["image"].dtype == torch.uint8
    assert mapped["sem_seg"].shape == (16, 20) and mapped["sem_seg"].dtype == torch.int64
    assert (mapped["height"], mapped["width"]) == (8, 10)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[4, 2, 12, 10]]
    assert "annotations" not in mapped and "sem_seg_file_name" not in mapped
    assert len(record["annotations"]) == 3 and "width" not in record
    assert record["annotations"][0]["segmentation"] == [SQUARE]


def test_the_test_mapper_drops_annotations(record):
    mapped = DatasetMapper(small_config(), False)(record)
    assert "instances" not in mapped and "annotations" not in mapped
    assert mapped["image"].shape == (3, 16, 20) and "sem_seg" in mapped


def test_the_image_format_is_respected(record):
    cfg = small_config()
    bgr = DatasetMapper(cfg, False)(record)["image"]
    cfg.INPUT.FORMAT = "RGB"
    assert torch.equal(DatasetMapper(cfg, False)(record)["image"], bgr.flip(0))
    cfg.INPUT.FORMAT = "L"
    assert DatasetMapper(cfg, False)(record)["image"].shape == (1, 16, 20)


def test_a_crop_comes_first_and_boxes_are_tightened(record):
    cfg = small_config()
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [8, 10]
    mapper = DatasetMapper(cfg, True)
    assert isinstance(mapper.augmentations.augs[0], T.RandomCrop) and mapper.recompute_boxes
    # The last annotation has a degenerate box, but a mask.
    boxes = mapper(record)["instances"].gt_boxes.tensor
    assert boxes.tolist() == [[4, 2, 12, 10], [4, 2, 12, 10]]


def test_without_masks_only_boxes_are_loaded(record):
    cfg = small_config()
    cfg.MODEL.MASK_ON = False
    assert not DatasetMapper(cfg, True)(record)["instances"].has("gt_masks")


def test_an_image_of_another_size_is_named(record):
    with pytest.raises(ValueError, match=r"x\.png"):
        DatasetMapper(small_config(), True)({**record, "width": 8, "height": 10})


def test_the_mapper_is_built_without_a_config_too(record, caplog):
    caplog.set_level(logging.INFO)
    logging.getLogger("detectron2").propagate = True
    mapper = DatasetMapper(
        True,
        augmentations=[T.HFlipTransform(10)],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    assert "HFlipTransform" in caplog.text
    instances = mapper(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[4, 1, 8, 5]]
    assert instances.gt_masks.tensor[0].nonzero()[:, 1].unique().tolist() == [4, 5, 6, 7]
