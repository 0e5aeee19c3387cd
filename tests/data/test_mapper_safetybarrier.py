"""The safety-barrier mapper against the published steps, written out on detectron2's functions."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api

from detectron2.data import DatasetCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from mask2former.data import SafetyBarrierInstanceDatasetMapper, build_train_mapper

DATASET = "tinyshapes_instance_train"


@pytest.fixture
def cfg(make_cfg, seeded_numpy):
    # The keys that would change the augmentations of other mappers.
    return make_cfg(
        "safetybarrier_instance_lsj",
        DATASET,
        "INPUT.IMAGE_SIZE",
        32,
        "INPUT.RANDOM_FLIP",
        "none",
        "INPUT.MASK_FORMAT",
        "bitmask",
    )


def plain(mapper, record):
    """Image tensor and instances as the published mapper makes them."""
    image = utils.read_image(record["file_name"], format="RGB")
    image, transforms = T.apply_transform_gens(mapper.tfm_gens, image)
    shape = image.shape[:2]
    annotations = [
        utils.transform_instance_annotations(dict(a), transforms, shape)
        for a in record["annotations"]
        if not a["iscrowd"]
    ]
    instances = utils.annotations_to_instances(annotations, shape, mask_format="bitmask")
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))), instances


def test_it_gives_what_the_published_steps_give(cfg):
    mapper = build_train_mapper(cfg)
    assert type(mapper) is SafetyBarrierInstanceDatasetMapper
    for seed, record in enumerate(DatasetCatalog.get(DATASET)[:6]):
        np.random.seed(seed)
        mapped = mapper(record)
        np.random.seed(seed)
        image, expected = plain(mapper, record)
        assert torch.equal(mapped["image"], image)
        instances = mapped["instances"]
        assert instances.image_size == tuple(image.shape[1:])
        assert torch.equal(instances.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert torch.equal(instances.gt_classes, expected.gt_classes)
        assert instances.gt_masks.dtype == torch.bool
        assert torch.equal(instances.gt_masks, expected.gt_masks.tensor)
        assert "annotations" not in mapped


def test_the_augmentations_are_fixed(cfg):
    mapper = SafetyBarrierInstanceDatasetMapper(cfg)
    resize, flip = mapper.tfm_gens
    assert resize.short_edge_length == (640, 672, 704, 736, 768, 800)
    assert (resize.max_size, resize.is_range) == (1333, False)
    assert (flip.prob, flip.horizontal) == (0.5, True)


def test_images_without_usable_annotations(cfg):
    mapper = build_train_mapper(cfg)
    record = DatasetCatalog.get(DATASET)[0]
    crowd = {**record["annotations"][0], "iscrowd": 1}
    for annotations in ([], [crowd]):
        mapped = mapper({**record, "annotations": annotations})
        assert mapped["instances"].gt_masks.shape == (0, *mapped["image"].shape[1:])
        assert mapped["instances"].gt_boxes.tensor.shape == (0, 4)
        assert mapped["instances"].gt_classes.dtype == torch.int64


def test_polygons_rle_and_arrays_give_the_same(cfg, tmp_path):
    Image.new("RGB", (100, 80)).save(tmp_path / "image.png")
    mask = np.zeros((80, 100), np.uint8)
    mask[20:60, 20:60] = 1
    rle = mask_api.encode(np.asfortranarray(mask))
    polygon = [[20.0, 20.0, 60.0, 20.0, 60.0, 60.0, 20.0, 60.0]]
    common = {"category_id": 2, "bbox": [20, 20, 40, 40], "bbox_mode": BoxMode.XYWH_ABS}
    annotations = [{**common, "iscrowd": 0, "segmentation": s} for s in (polygon, rle, mask)]
    record = {"file_name": str(tmp_path / "image.png"), "annotations": annotations}
    instances = build_train_mapper(cfg)(record)["instances"]
    for found in instances.gt_masks[1:]:
        # Polygons are drawn at the new size, the others resized: the border may differ.
        assert (found != instances.gt_masks[0]).float().mean() < 0.01
    assert torch.equal(instances.gt_masks[1], instances.gt_masks[2])
    assert instances.gt_masks[0].float().mean().item() == pytest.approx(0.2, abs=0.01)


def test_it_only_trains(cfg):
    with pytest.raises(AssertionError, match="training"):
        SafetyBarrierInstanceDatasetMapper(cfg, is_train=False)
