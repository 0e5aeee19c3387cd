"""MODEL.FAST changes the speed of inference, not its results."""

import copy
import pickle

import parity_models
import pytest
import timm
import torch
from torch import nn

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.layers import get_norm as norm_of
from mask2former.modeling.fast_inference import (
    fold_batch_norms,
    is_convolutional,
    prepare_for_inference,
    use_channels_last,
)
from mask2former.modeling.postprocessing.plain import segment_all_plainly
from mask2former.ops import use_implementation
from mask2former.ops.implementation import wants_reference


def with_random_statistics(module):
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            shape = part.running_mean.shape
            part.running_mean.copy_(torch.randn(shape, generator=generator))
            part.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
            part.weight.data.copy_(torch.rand(shape, generator=generator) + 0.5)
            part.bias.data.copy_(torch.randn(shape, generator=generator))
    return module


def relative_difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@torch.no_grad()
def logits(model, image):
    outputs = model.sem_seg_head(model.backbone(image))
    return outputs["pred_logits"], outputs["pred_masks"]


@pytest.mark.parametrize("case", ["r50_panoptic", "swin_panoptic", "dinat_panoptic"])
def test_outputs_with_and_without_are_equal(case):
    cfg = parity_models.config(case)
    plain = parity_models.model(case)
    fast = prepare_for_inference(copy.deepcopy(plain), cfg)
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with use_implementation("reference"):
        expected = logits(plain, image)
    for actual, wanted in zip(logits(fast, image), expected):
        assert relative_difference(actual, wanted) < 1e-5


CONFIGURATIONS = [
    *("r50_panoptic", "r50_instance", "r50_semantic_postafter", "r50_semantic_postbefore"),
    *("swin_panoptic", "dinat_panoptic", "semask_panoptic"),
    *("maskformer_v1_res5", "maskformer_v1_transformer_encoder"),
]


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_every_configuration_predicts_the_same_with_and_without(case):
    """End to end, post-processing included: one switch turns every fast path off."""
    original = parity_models.model(case)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 80, 112), generator=generator).float()
    results = {}
    for fast in (True, False):
        cfg = parity_models.config(case, "MODEL.FAST", fast)
        model = prepare_for_inference(copy.deepcopy(original).double(), cfg)
        with torch.no_grad():
            (results[fast],) = model([{"image": image, "height": 53, "width": 91}])
    ours, plain = results[True], results[False]
    assert set(ours) == set(plain) != set()
    if "sem_seg" in ours:
        assert relative_difference(ours["sem_seg"], plain["sem_seg"]) < 1e-5
    if "panoptic_seg" in ours:
        assert ours["panoptic_seg"][1] == plain["panoptic_seg"][1]
        agreement = ours["panoptic_seg"][0] == plain["panoptic_seg"][0]
        assert agreement.double().mean() > 0.9999
    if "instances" in ours:
        ours, plain = ours["instances"], plain["instances"]
        torch.testing.assert_close(ours.scores, plain.scores, rtol=1e-5, atol=1e-7)
        assert ours.pred_masks.dtype == plain.pred_masks.dtype
        assert (
            ours.pred_masks.sum() - plain.pred_masks.sum()
        ).abs() < 1e-4 * ours.pred_masks.numel()


def test_the_norms_of_a_resnet_disappear_and_it_works_channels_last():
    model = parity_models.model("r50_panoptic")
    prepare_for_inference(model, parity_models.config("r50_panoptic"))
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in model.backbone.modules())
    features = model.backbone(torch.randn(1, 3, 64, 64))
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in features.values())


def test_switched_off_the_model_is_as_published_and_ops_are_references():
    model = parity_models.model("r50_panoptic")
    names = list(model.state_dict())
    seen = []
    model.backbone.register_forward_hook(lambda *_: seen.append(wants_reference()))
    prepare_for_inference(model, parity_models.config("r50_panoptic", "MODEL.FAST", False))
    model([{"image": torch.zeros(3, 64, 64)}])
    assert list(model.state_dict()) == names
    assert seen == [True]
    assert not wants_reference()
    assert model.segment is segment_all_plainly


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("fast", [True, False])
def test_a_copy_of_a_prepared_model_has_its_own_weights(fast, copied):
    cfg = parity_models.config("r50_semantic_postafter", "MODEL.FAST", fast)
    model = prepare_for_inference(parity_models.model("r50_semantic_postafter"), cfg)
    image = [{"image": torch.arange(3 * 64 * 64).view(3, 64, 64) % 251}]
    (before,) = model(image)
    clone = copied(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    seen = []
    clone.backbone.register_forward_hook(lambda *_: seen.append(wants_reference()))
    assert torch.equal(clone(image)[0]["sem_seg"], before["sem_seg"])
    assert not torch.equal(model(image)[0]["sem_seg"], before["sem_seg"])
    assert seen == [not fast]


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_folding_keeps_what_a_convolution_with_a_norm_computes(norm):
    conv = Conv2d(3, 8, 3, bias=norm == "BN", norm=norm_of(norm, 8), activation=torch.relu)
    conv = with_random_statistics(conv).eval()
    image = torch.randn(2, 3, 9, 7)
    expected = conv(image)
    assert fold_batch_norms(conv) == 1
    assert conv.norm is None
    torch.testing.assert_close(conv(image), expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50d", "seresnet50", "regnety_002"])
def test_backbones_of_timm_stay_the_same(name):
    torch.manual_seed(0)
    model = with_random_statistics(timm.create_model(name, num_classes=2)).double().eval()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(image)
        folded = fold_batch_norms(model)
        assert is_convolutional(model)
        use_channels_last(model)
        assert relative_difference(model(image), expected) < 1e-10
    norms = sum(type(m) is nn.BatchNorm2d for m in model.modules())
    if name in ("resnet18", "resnet50", "resnet50d"):
        assert folded > 15
        assert norms == (name == "resnet50d")  # whose stem ends in a Sequential


def test_norms_with_statistics_of_the_batch_are_left_alone():
    for norm in (nn.BatchNorm2d(4).train(), nn.BatchNorm2d(4, track_running_stats=False).eval()):
        assert fold_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), norm)) == 0


def test_only_a_norm_that_follows_its_convolution_directly_is_folded():
    parts = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert fold_batch_norms(parts) == 0


def test_a_transformer_is_not_convolutional():
    assert not is_convolutional(parity_models.model("swin_panoptic").backbone)
