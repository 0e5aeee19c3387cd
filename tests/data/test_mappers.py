"""Each mapper against the published steps, written out plainly on detectron2's functions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks
from mask2former.data import (
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerSemanticDatasetMapper,
    build_train_mapper,
)

PANOPTIC = "tinyshapes_panoptic_train_with_sem_seg"
CROP = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [70, 60])
CATEGORY = (*CROP, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.6)


def decode_ids(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.int64) @ [1, 256, 65536]


def draw(mapper, record, seed):
    np.random.seed(seed)
    return mapper(record)


def plain_augment(mapper, record, seed, labels=None):
    """Image and transforms as the published mappers obtain them."""
    np.random.seed(seed)
    image = utils.read_image(record["file_name"], format="RGB")
    aug_input = T.AugInput(image, sem_seg=labels)
    return T.apply_transform_gens(mapper.tfm_gens, aug_input)


def pad(tensor, side, value):
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, side - width, 0, side - height), value=value)


def as_tensor(image):
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))


@pytest.mark.parametrize("overrides", [(), CATEGORY, (*CATEGORY, "INPUT.SIZE_DIVISIBILITY", 80)])
def test_semantic(make_cfg, seeded_numpy, overrides):
    dataset = "tinyshapes_sem_seg_train"
    cfg = make_cfg("mask_former_semantic", dataset, *overrides)
    mapper = build_train_mapper(cfg)
    side = cfg.INPUT.SIZE_DIVISIBILITY
    for seed, record in enumerate(DatasetCatalog.get(dataset)):
        mapped = draw(mapper, record, seed)
        labels = utils.read_image(record["sem_seg_file_name"]).astype("double")
        aug_input, _ = plain_augment(mapper, record, seed, labels)
        image = as_tensor(aug_input.image)
        sem_seg = torch.as_tensor(aug_input.sem_seg.astype("long"))
        if side > 0:
            image, sem_seg = pad(image, side, 128), pad(sem_seg, side, 255)
        assert torch.equal(mapped["image"], image)
        assert mapped["image"].dtype == torch.uint8
        assert torch.equal(mapped["sem_seg"], sem_seg)
        classes = [c for c in sem_seg.unique().tolist() if c != 255]
        instances = mapped["instances"]
        assert instances.image_size == tuple(sem_seg.shape)
        assert instances.gt_classes.tolist() == classes
        assert instances.gt_classes.dtype == torch.int64
        assert torch.equal(instances.gt_masks, torch.stack([sem_seg == c for c in classes]))
        assert "sem_seg_file_name" not in mapped
        assert (mapped["height"], mapped["width"]) == labels.shape


@pytest.mark.parametrize("dataset", [PANOPTIC, "tinyshapes_panoptic_train"])
@pytest.mark.parametrize("overrides", [(), CROP, (*CROP, "INPUT.SIZE_DIVISIBILITY", 72)])
def test_panoptic(make_cfg, seeded_numpy, dataset, overrides):
    cfg = make_cfg("mask_former_panoptic", dataset, *overrides)
    mapper = build_train_mapper(cfg)
    side = cfg.INPUT.SIZE_DIVISIBILITY
    for seed, record in enumerate(DatasetCatalog.get(dataset)):
        mapped = draw(mapper, record, seed)
        labels = None
        if "sem_seg_file_name" in record:
            labels = utils.read_image(record["sem_seg_file_name"]).astype("double")
        aug_input, transforms = plain_augment(mapper, record, seed, labels)
        rgb = transforms.apply_segmentation(utils.read_image(record["pan_seg_file_name"], "RGB"))
        ids, image = torch.from_numpy(decode_ids(rgb)), as_tensor(aug_input.image)
        if side > 0:
            ids, image = pad(ids, side, 0), pad(image, side, 128)
        kept = [s for s in record["segments_info"] if not s["iscrowd"]]
        assert torch.equal(mapped["image"], image)
        assert mapped["instances"].gt_classes.tolist() == [s["category_id"] for s in kept]
        expected = torch.stack([ids == s["id"] for s in kept])
        assert torch.equal(mapped["instances"].gt_masks, expected)
        assert not mapped["instances"].has("gt_boxes")
        assert ("sem_seg" in mapped) == (labels is not None)
        if labels is not None:
            sem_seg = torch.as_tensor(aug_input.sem_seg.astype("long"))
            sem_seg = pad(sem_seg, side, 255) if side > 0 else sem_seg
            assert torch.equal(mapped["sem_seg"], sem_seg)
        assert "pan_seg_file_name" not in mapped
        assert "sem_seg_file_name" not in mapped
        assert mapped["segments_info"] == record["segments_info"]


@pytest.mark.parametrize("overrides", [(), CROP, (*CROP, "INPUT.SIZE_DIVISIBILITY", 72)])
def test_instance(make_cfg, seeded_numpy, overrides):
    dataset = "tinyshapes_instance_train"
    cfg = make_cfg("mask_former_instance", dataset, *overrides)
    mapper = build_train_mapper(cfg)
    side = cfg.INPUT.SIZE_DIVISIBILITY
    for seed, record in enumerate(DatasetCatalog.get(dataset)):
        mapped = draw(mapper, record, seed)
        aug_input, transforms = plain_augment(mapper, record, seed)
        shape = aug_input.image.shape[:2]
        kept = [a for a in record["annotations"] if not a["iscrowd"]]
        masks = []
        for annotation in kept:
            done = utils.transform_instance_annotations(dict(annotation), transforms, shape)
            segmentation = done["segmentation"]
            if isinstance(segmentation, list):
                segmentation = utils.polygons_to_bitmask(segmentation, *shape)
            masks.append(torch.from_numpy(np.ascontiguousarray(segmentation)).bool())
        image, masks = as_tensor(aug_input.image), torch.stack(masks)
        if side > 0:
            image, masks = pad(image, side, 128), pad(masks, side, 0)
        assert torch.equal(mapped["image"], image)
        assert torch.equal(mapped["instances"].gt_masks, masks)
        assert mapped["instances"].gt_classes.tolist() == [a["category_id"] for a in kept]
        assert not mapped["instances"].has("gt_boxes")
        assert "annotations" not in mapped


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
def test_panoptic_large_scale_jitter(make_cfg, seeded_numpy, flip):
    cfg = make_cfg("coco_panoptic_lsj", PANOPTIC, "INPUT.RANDOM_FLIP", flip)
    mapper = build_train_mapper(cfg)
    for seed, record in enumerate(DatasetCatalog.get(PANOPTIC)):
        mapped = draw(mapper, record, seed)
        aug_input, transforms = plain_augment(mapper, record, seed)
        rgb = transforms.apply_segmentation(utils.read_image(record["pan_seg_file_name"], "RGB"))
        kept = [s for s in record["segments_info"] if not s["iscrowd"]]
        masks = torch.stack([torch.from_numpy(decode_ids(rgb) == s["id"]) for s in kept])
        instances = mapped["instances"]
        assert torch.equal(mapped["image"], as_tensor(aug_input.image))
        assert mapped["image"].shape == (3, 96, 96)
        assert torch.equal(instances.gt_masks, masks)
        assert torch.equal(instances.gt_boxes.tensor, BitMasks(masks).get_bounding_boxes().tensor)
        assert instances.gt_classes.tolist() == [s["category_id"] for s in kept]
        assert "padding_mask" not in mapped


def test_instance_large_scale_jitter(make_cfg, seeded_numpy):
    dataset = "tinyshapes_instance_train"
    mapper = build_train_mapper(make_cfg("coco_instance_lsj", dataset))
    compared = 0
    for seed, record in enumerate(DatasetCatalog.get(dataset)):
        # The published mapper knows polygons only.
        record["annotations"] = [
            a for a in record["annotations"] if isinstance(a["segmentation"], list)
        ]
        if not record["annotations"]:
            continue
        mapped = draw(mapper, record, seed)
        aug_input, transforms = plain_augment(mapper, record, seed)
        shape = aug_input.image.shape[:2]
        done = [
            utils.transform_instance_annotations(dict(a), transforms, shape)
            for a in record["annotations"]
        ]
        expected = utils.annotations_to_instances(done, shape)
        expected.gt_boxes = expected.gt_masks.get_bounding_boxes()
        expected = utils.filter_empty_instances(expected)
        masks = [utils.polygons_to_bitmask(p, *shape) for p in expected.gt_masks.polygons]
        instances = mapped["instances"]
        assert torch.equal(mapped["image"], as_tensor(aug_input.image))
        assert torch.equal(instances.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert torch.equal(instances.gt_classes, expected.gt_classes)
        assert instances.gt_masks.dtype == torch.uint8
        assert instances.gt_masks.shape == (len(masks), 96, 96)
        for ours, plain in zip(instances.gt_masks, masks):
            np.testing.assert_array_equal(ours.numpy(), plain)
        ones = transforms.apply_segmentation(np.ones((record["height"], record["width"])))
        assert torch.equal(mapped["padding_mask"], torch.from_numpy(~ones.astype(bool)))
        compared += len(masks)
    assert compared > 10


def test_run_lengths_train_with_large_scale_jitter(make_cfg, seeded_numpy):
    dataset = "tinyshapes_instance_train"
    mapper = build_train_mapper(make_cfg("coco_instance_lsj", dataset))
    compared = 0
    for seed, record in enumerate(DatasetCatalog.get(dataset)):
        record["annotations"] = [
            a
            for a in record["annotations"]
            if isinstance(a["segmentation"], dict) and not a["iscrowd"]
        ]
        instances = draw(mapper, record, seed)["instances"]
        boxes = BitMasks(instances.gt_masks.bool()).get_bounding_boxes().tensor
        assert torch.equal(instances.gt_boxes.tensor, boxes)
        assert (instances.gt_masks.flatten(1).sum(1) > 0).all()
        compared += len(instances)
    assert compared > 0


def test_segments_that_vanished_keep_empty_masks(make_cfg, seeded_numpy):
    overrides = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute")
    cfg = make_cfg("mask_former_panoptic", PANOPTIC, *overrides, "INPUT.CROP.SIZE", [8, 8])
    mapper = build_train_mapper(cfg)
    empty = 0
    for seed, record in enumerate(DatasetCatalog.get(PANOPTIC)):
        instances = draw(mapper, record, seed)["instances"]
        assert len(instances) == sum(not s["iscrowd"] for s in record["segments_info"])
        empty += int((instances.gt_masks.flatten(1).sum(1) == 0).sum())
    assert empty > 0


def test_padding_cuts_what_is_larger(make_cfg, seeded_numpy):
    cfg = make_cfg("mask_former_panoptic", PANOPTIC, "INPUT.SIZE_DIVISIBILITY", 48)
    mapped = build_train_mapper(cfg)(DatasetCatalog.get(PANOPTIC)[0])
    assert mapped["image"].shape == (3, 48, 48)
    assert mapped["sem_seg"].shape == (48, 48)
    assert mapped["instances"].gt_masks.shape[1:] == (48, 48)


def test_the_input_record_is_left_alone_and_unknown_keys_pass_through(make_cfg, seeded_numpy):
    for name, dataset in (
        ("coco_panoptic_lsj", PANOPTIC),
        ("coco_instance_lsj", "tinyshapes_instance_train"),
        ("mask_former_instance", "tinyshapes_instance_train"),
    ):
        record = {**DatasetCatalog.get(dataset)[0], "note": "mine"}
        reference = {**DatasetCatalog.get(dataset)[0], "note": "mine"}
        mapped = build_train_mapper(make_cfg(name, dataset))(record)
        assert record == reference
        assert mapped["note"] == "mine"


def test_names_and_classes(make_cfg):
    for name, dataset, kind in (
        ("mask_former_semantic", "tinyshapes_sem_seg_train", MaskFormerSemanticDatasetMapper),
        ("mask_former_panoptic", PANOPTIC, MaskFormerPanopticDatasetMapper),
        (
            "mask_former_instance",
            "tinyshapes_instance_train",
            MaskFormerInstanceDatasetMapper,
        ),
        ("coco_instance_lsj", "tinyshapes_instance_train", COCOInstanceNewBaselineDatasetMapper),
        ("coco_panoptic_lsj", PANOPTIC, COCOPanopticNewBaselineDatasetMapper),
        ("anything else", "tinyshapes_instance_train", DatasetMapper),
    ):
        assert type(build_train_mapper(make_cfg(name, dataset))) is kind


def test_attributes_that_users_touch(make_cfg):
    mapper = build_train_mapper(make_cfg("mask_former_panoptic", PANOPTIC, *CROP))
    assert (mapper.is_train, mapper.img_format) == (True, "RGB")
    assert (mapper.ignore_label, mapper.size_divisibility) == (255, -1)
    names = [type(a).__name__ for a in mapper.tfm_gens]
    assert names == ["ResizeShortestEdge", "RandomCrop_CategoryAreaConstraint", "RandomFlip"]


def test_augmentation_order_with_colour_jitter(make_cfg):
    cfg = make_cfg("mask_former_instance", PANOPTIC, *CROP, "INPUT.COLOR_AUG_SSD", True)
    names = [type(a).__name__ for a in build_train_mapper(cfg).tfm_gens]
    assert names == ["ResizeShortestEdge", "RandomCrop", "ColorAugSSDTransform", "RandomFlip"]
    cfg = make_cfg("coco_instance_lsj", PANOPTIC)
    names = [type(a).__name__ for a in build_train_mapper(cfg).tfm_gens]
    assert names == ["RandomFlip", "ResizeScale", "FixedSizeCrop"]


def test_mappers_can_be_built_without_a_config():
    mapper = MaskFormerSemanticDatasetMapper(
        True, augmentations=[], image_format="RGB", ignore_label=9, size_divisibility=4
    )
    assert (mapper.ignore_label, mapper.size_divisibility, mapper.tfm_gens) == (9, 4, [])
    jitter = COCOPanopticNewBaselineDatasetMapper(True, tfm_gens=[], image_format="BGR")
    assert jitter.img_format == "BGR"
