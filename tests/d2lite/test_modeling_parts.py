"""Registries, the per-pixel meta architecture, post-processing, test-time augmentation."""

import numpy as np
import pytest
import torch

from detectron2.config import get_cfg
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
    DatasetMapperTTA,
    SemanticSegmentor,
    build_model,
    build_sem_seg_head,
    detector_postprocess,
)
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, Instances


class HalfSize(Backbone):
    """Average-pools the image."""

    _out_features = ("half",)
    _out_feature_channels = {"half": 3}
    _out_feature_strides = {"half": 2}
    size_divisibility = 4

    def forward(self, x):
        self.seen = x
        return {"half": torch.nn.functional.avg_pool2d(x, 2)}


class Head(torch.nn.Module):
    """Gives the pooled image back as logits."""

    ignore_value = 255

    def forward(self, features, targets=None):
        self.targets = targets
        logits = torch.nn.functional.interpolate(features["half"], scale_factor=2)
        return logits, ({"loss": logits.mean()} if self.training else {})


@pytest.fixture
def segmentor():
    return SemanticSegmentor(
        backbone=HalfSize(), sem_seg_head=Head(), pixel_mean=[1, 2, 3], pixel_std=[1, 2, 4]
    )


def test_segmentor_normalises_pads_and_resizes_to_the_asked_size(segmentor):
    segmentor.eval()
    images = [torch.full((3, 6, 8), 5.0), torch.full((3, 4, 5), 5.0)]
    outputs = segmentor([{"image": images[0]}, {"image": images[1], "height": 8, "width": 10}])
    assert segmentor.backbone.seen.shape == (2, 3, 8, 8)
    assert segmentor.backbone.seen[1, :, 0, 0].tolist() == [4.0, 1.5, 0.5]
    assert segmentor.backbone.seen[1, 0, 5, 0] == 0  # padded after normalisation
    assert [tuple(o["sem_seg"].shape) for o in outputs] == [(3, 6, 8), (3, 8, 10)]


def test_segmentor_pads_targets_with_the_ignored_value_and_returns_losses(segmentor):
    segmentor.train()
    record = {"image": torch.zeros(3, 6, 8), "sem_seg": torch.ones(6, 8, dtype=torch.long)}
    assert set(segmentor([record])) == {"loss"}
    targets = segmentor.sem_seg_head.targets
    assert targets.shape == (1, 8, 8)
    assert (targets[0, :6] == 1).all() and (targets[0, 6:] == 255).all()


def test_segmentor_saves_no_pixel_statistics(segmentor):
    assert segmentor.state_dict() == {}


def test_build_model_uses_the_registry_and_the_device():
    @META_ARCH_REGISTRY.register()
    class OneWeight(torch.nn.Module):
        def __init__(self, cfg):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "OneWeight"
    cfg.MODEL.DEVICE = "meta"
    assert build_model(cfg).weight.device.type == "meta"
    cfg.MODEL.META_ARCHITECTURE = "Nothing"
    with pytest.raises(KeyError, match="Nothing"):
        build_model(cfg)


def test_build_sem_seg_head_hands_over_config_and_shapes():
    @SEM_SEG_HEADS_REGISTRY.register()
    def echo_head(cfg, input_shape):
        return cfg, input_shape

    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "echo_head"
    assert build_sem_seg_head(cfg, {"a": 1}) == (cfg, {"a": 1})


def test_sem_seg_postprocess_crops_the_padding_before_it_resizes():
    scores = torch.zeros(2, 8, 8)
    scores[:, :4, :6] = 1.0
    result = sem_seg_postprocess(scores, (4, 6), 8, 12)
    assert result.shape == (2, 8, 12)
    assert (result == 1.0).all()


def test_detector_postprocess_scales_clips_and_drops_empty_boxes():
    instances = Instances((10, 10))
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 0, 5, 5], [12, 0, 14, 5], [5, 5, 20, 20]]))
    instances.scores = torch.tensor([0.9, 0.8, 0.7])
    instances.pred_masks = torch.ones(3, 1, 28, 28)
    result = detector_postprocess(instances, 20, 40)
    assert result.image_size == (20, 40)
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.7]))
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 20, 10], [20, 10, 40, 20]]
    assert result.pred_masks.shape == (2, 20, 40)
    assert result.pred_masks[0].sum() == 200
    assert instances.pred_boxes.tensor[0].tolist() == [0, 0, 5, 5]  # the input is untouched


def test_tta_gives_a_flipped_copy_after_each_size_and_transforms_from_the_original():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    mapper = DatasetMapperTTA(min_sizes=[10, 40], max_size=50, flip=True)
    record = {
        "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
        "height": 40,
        "width": 60,
        "image_id": 7,
    }
    copies = mapper(record)
    assert [tuple(c["image"].shape) for c in copies] == [(3, 10, 15)] * 2 + [(3, 33, 50)] * 2
    assert torch.equal(copies[1]["image"], copies[0]["image"].flip(-1))
    assert {c["image_id"] for c in copies} == {7}
    corner = copies[1]["transforms"].apply_coords(np.array([[0.0, 40.0]]))
    np.testing.assert_allclose(corner, [[15.0, 10.0]])


def test_tta_without_flip_has_one_copy_per_size():
    cfg = get_cfg()
    cfg.TEST.AUG.MIN_SIZES = (10, 12, 14)
    cfg.TEST.AUG.FLIP = False
    record = {"image": torch.zeros(3, 20, 20, dtype=torch.uint8), "height": 20, "width": 20}
    assert len(DatasetMapperTTA(cfg)(record)) == 3
