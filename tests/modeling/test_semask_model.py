"""SeMaskMaskFormer as a whole: images of different sizes, any ground truth, bad input."""

import parity_models
import pytest
import torch

from detectron2.modeling import build_backbone
from detectron2.structures import Instances
from mask2former import SeMaskMaskFormer
from mask2former.modeling import semantic_maps
from mask2former.modeling.errors import BackboneError
from mask2former.modeling.meta_arch.branch_mask_former_head import BranchMaskFormerHead

CASE = "semask_panoptic"


@pytest.fixture(scope="module")
def model():
    return parity_models.model(CASE)


@pytest.fixture
def batch() -> list[dict]:
    """Two images of different sizes with two segments each."""
    generator = torch.Generator().manual_seed(0)
    records = []
    for record in parity_models.batched_inputs(CASE):
        size = tuple(record["image"].shape[-2:])
        instances = Instances(size)
        instances.gt_classes = torch.tensor([0, 3])
        instances.gt_masks = torch.rand(2, *size, generator=generator) > 0.5
        records.append({"image": record["image"], "instances": instances})
    return records


def label_map(record: dict) -> torch.Tensor:
    return torch.randint(7, record["image"].shape[-2:], generator=torch.Generator().manual_seed(1))


def test_published_names(model):
    assert isinstance(model, SeMaskMaskFormer)
    assert isinstance(model.sem_seg_head, BranchMaskFormerHead)


@pytest.mark.parametrize("with_map", [True, False])
def test_images_of_different_sizes_train(model, batch, with_map):
    if with_map:
        batch = [{**record, "sem_seg": label_map(record)} for record in batch]
    losses = model.train()(batch)
    assert losses["loss_cate"] > 0
    assert losses["loss_cate_0"] == 0
    sum(losses.values()).backward()
    layer = model.backbone.layers[3].semantic_layer.class_injection[0]
    assert layer.mlp_cls_q.weight.grad.abs().sum() > 0


def test_a_label_map_is_preferred_to_painted_instances(model, batch):
    model.train()
    torch.manual_seed(0)
    painted = model(batch)["loss_cate"]
    torch.manual_seed(0)
    given = model([{**record, "sem_seg": label_map(record)} for record in batch])["loss_cate"]
    assert painted != given


def test_padding_has_no_part_in_the_loss(model, batch):
    # Dropout off: only the padding differs from image to image.
    record = {**batch[0], "sem_seg": label_map(batch[0])}
    losses = SemanticLosses(model)
    alone = losses.of([record])
    wide = dict(batch[1], image=torch.zeros(3, 96, 128, dtype=torch.uint8))
    wide["instances"] = Instances((96, 128))
    wide["instances"].gt_classes = torch.zeros(0, dtype=torch.int64)
    wide["instances"].gt_masks = torch.zeros(0, 96, 128, dtype=torch.bool)
    torch.testing.assert_close(losses.of([record, wide]), alone, rtol=1e-4, atol=1e-5)


class SemanticLosses:
    """loss_cate of a model without dropout."""

    def __init__(self, model) -> None:
        self.model = model
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    def of(self, batch: list[dict]) -> torch.Tensor:
        return self.model.train()(batch)["loss_cate"].detach()


def test_evaluation_does_not_make_the_semantic_map(model, monkeypatch):
    def fail(*args):
        raise RuntimeError("made")

    monkeypatch.setattr(semantic_maps, "sum_of_class_maps", fail)
    with torch.no_grad():
        results = model.eval()(parity_models.batched_inputs(CASE))
    assert set(results[0]) == {"sem_seg", "panoptic_seg", "instances"}


def test_labels_out_of_range_are_named(model, batch):
    sem_seg = label_map(batch[1])
    sem_seg[0, 0] = 7
    batch[1]["sem_seg"] = sem_seg
    with pytest.raises(ValueError, match=r"sem_seg of image 1 .* has label 7.*NUM_CLASSES is 7"):
        model.train()(batch)


def test_another_ignore_label_than_255_is_the_heads(batch):
    model = parity_models.model(CASE, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 7).train()
    sem_seg = [torch.full_like(label_map(record), 7) for record in batch]
    losses = model([{**record, "sem_seg": labels} for record, labels in zip(batch, sem_seg)])
    assert losses["loss_cate"] == 0


def test_bfloat16_autocast_trains(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(batch)
    total = sum(losses.values())
    assert losses["loss_cate"].dtype == torch.float32 and total.isfinite()
    total.backward()


def test_a_head_without_class_maps_is_named(batch):
    model = parity_models.model(CASE).train()
    model.sem_seg_head = parity_models.model("swin_panoptic").sem_seg_head
    with pytest.raises(BackboneError, match=r"MODEL.SEM_SEG_HEAD.NAME builds a MaskFormerHead"):
        model(batch)


def test_a_plain_meta_architecture_is_refused_by_key():
    cfg = parity_models.config(CASE)
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    with pytest.raises(BackboneError, match=r"set MODEL.META_ARCHITECTURE SeMaskMaskFormer"):
        build_backbone(cfg)


def test_a_backbone_without_class_maps_is_named(batch):
    model = parity_models.model(CASE).train()
    plain = parity_models.model("swin_panoptic").backbone
    model.backbone = plain
    with pytest.raises(BackboneError, match=r"MODEL.BACKBONE.NAME builds a D2SwinTransformer"):
        model(batch)
