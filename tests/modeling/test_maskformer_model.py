"""MaskFormer as a whole: what goes in, what comes out, mixed precision, and bad input."""

import parity_models
import pytest
import torch

import mask2former.maskformer_model as maskformer_model
from detectron2.structures import BitMasks, ImageList, Instances

CASE = "r50_panoptic"


@pytest.fixture(scope="module")
def model():
    return parity_models.model(CASE)


@pytest.fixture
def inputs() -> list[dict]:
    return parity_models.batched_inputs(CASE)


def with_ground_truth(inputs: list[dict], labels: tuple[int, ...] = (0, 3)) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    batch = []
    for record in inputs:
        size = tuple(record["image"].shape[-2:])
        instances = Instances(size)
        instances.gt_classes = torch.tensor(labels)
        instances.gt_masks = torch.rand(len(labels), *size, generator=generator) > 0.5
        batch.append({"image": record["image"], "instances": instances})
    return batch


def run(model, inputs):
    with torch.no_grad():
        return model.eval()(inputs)


def test_results_have_the_size_asked_for_or_that_of_the_image(model, inputs):
    del inputs[1]["height"], inputs[1]["width"]
    results = run(model, inputs)
    sizes = [(inputs[0]["height"], inputs[0]["width"]), tuple(inputs[1]["image"].shape[-2:])]
    for result, size in zip(results, sizes):
        assert set(result) == {"sem_seg", "panoptic_seg", "instances"}
        assert tuple(result["sem_seg"].shape[1:]) == size
        assert tuple(result["panoptic_seg"][0].shape) == size
        assert result["instances"].image_size == size


def test_tasks_that_are_off_give_no_output(inputs):
    options = ["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False]
    options += ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False]
    assert set(run(parity_models.model(CASE, *options), inputs)[0]) == {"instances"}


def test_masks_must_be_resized_when_semantic_output_is_off():
    names = ("SEMANTIC_ON", "PANOPTIC_ON", "INSTANCE_ON")
    options = [x for name in names for x in (f"MODEL.MASK_FORMER.TEST.{name}", False)]
    with pytest.raises(ValueError, match="SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE"):
        parity_models.model(CASE, *options)


def test_more_detections_than_pairs_of_query_and_class_are_no_error(inputs):
    options = ["TEST.DETECTIONS_PER_IMAGE", 100_000]
    options += ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False]
    instances = run(parity_models.model(CASE, *options), inputs)[0]["instances"]
    assert len(instances) == 16 * 7


def test_single_task_methods_agree_with_the_forward_pass(model, inputs):
    size = tuple(inputs[0]["image"].shape[-2:])
    record = {"image": inputs[0]["image"]}  # output at the size of the image
    (result,) = run(model, [record])
    images = model.preprocess_image([record])
    with torch.no_grad():
        outputs = model.sem_seg_head(model.backbone(images.tensor))
        masks = torch.nn.functional.interpolate(
            outputs["pred_masks"], size=images.tensor.shape[-2:], mode="bilinear"
        )[0, :, : size[0], : size[1]]
    logits = outputs["pred_logits"][0]
    torch.testing.assert_close(
        model.semantic_inference(logits, masks), result["sem_seg"], atol=1e-4, rtol=1e-4
    )
    panoptic, segments = model.panoptic_inference(logits, masks)
    assert (panoptic != result["panoptic_seg"][0]).sum() <= 3
    assert segments == result["panoptic_seg"][1]
    scores = model.instance_inference(logits, masks).scores
    torch.testing.assert_close(scores, result["instances"].scores, atol=1e-4, rtol=1e-4)


def test_auxiliary_masks_are_not_made_in_evaluation(model, inputs):
    kept = []
    handle = model.sem_seg_head.register_forward_hook(lambda *args: kept.append(args[-1]))
    run(model, inputs)
    handle.remove()
    assert all("pred_masks" not in dict(layer) for layer in kept[0]["aux_outputs"])


def test_losses_are_weighted_and_carry_a_suffix_per_layer(model, inputs):
    losses = model.train()(with_ground_truth(inputs))
    suffixes = ["", "_0", "_1", "_2"]
    names = {f"loss_{n}{s}" for n in ("ce", "mask", "dice") for s in suffixes}
    assert set(losses) == names == set(model.criterion.weight_dict)
    assert model.criterion.weight_dict["loss_ce_1"] == 2.0
    assert model.criterion.weight_dict["loss_mask"] == 5.0


def test_without_deep_supervision_only_the_last_prediction_is_supervised(inputs):
    model = parity_models.model(CASE, "MODEL.MASK_FORMER.DEEP_SUPERVISION", False).train()
    assert set(model(with_ground_truth(inputs))) == {"loss_ce", "loss_mask", "loss_dice"}


def test_bfloat16_training_step(model, inputs):
    torch.manual_seed(0)
    expected = model.train()(with_ground_truth(inputs))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(with_ground_truth(inputs))
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.zero_grad()
    total, expected_total = sum(losses.values()).item(), sum(expected.values()).item()
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert total == pytest.approx(expected_total, rel=0.1)


def test_bfloat16_inference(model, inputs):
    expected = run(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        results = run(model, inputs)
    for result, reference in zip(results, expected):
        assert result["sem_seg"].dtype == torch.float32
        agree = result["sem_seg"].argmax(0) == reference["sem_seg"].argmax(0)
        assert agree.float().mean() > 0.8


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_on_a_gpu(inputs, dtype):
    model = parity_models.model(CASE).cuda()
    with torch.autocast("cuda", dtype):
        assert run(model, inputs)[0]["sem_seg"].isfinite().all()
        losses = model.train()(with_ground_truth(inputs))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()


@pytest.mark.gpu
def test_a_training_step_waits_for_the_gpu_at_most_three_times(inputs):
    model, batch = parity_models.model(CASE).cuda().train(), with_ground_truth(inputs)
    sum(model(batch).values()).backward()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning) as warnings:
            sum(model(batch).values()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in warnings if "synchronizing" in str(w.message)]) <= 3


def test_targets_are_padded_like_the_batch(model):
    images = ImageList.from_tensors([torch.zeros(3, 8, 6), torch.zeros(3, 5, 9)], 4)
    truth = Instances((5, 9))
    truth.gt_classes = torch.tensor([1])
    truth.gt_masks = BitMasks(torch.ones(1, 5, 9))
    (target,) = model.prepare_targets([truth], images)
    assert target["masks"].dtype == torch.bool
    assert target["masks"].shape == (1, 8, 12)
    assert target["masks"].sum() == 45


@pytest.mark.parametrize("label", [7, -1])
def test_a_label_without_a_class_names_the_key_and_the_label(model, inputs, label):
    with pytest.raises(ValueError, match=rf"label {label}\b.*SEM_SEG_HEAD.NUM_CLASSES is 7"):
        model.train()(with_ground_truth(inputs, labels=(0, label)))


def test_training_without_ground_truth_names_the_inputs(model, inputs):
    with pytest.raises(KeyError, match=r"inputs \[0, 1\]"):
        model.train()(inputs)


def test_panoptic_output_needs_to_know_the_things(model, inputs, monkeypatch):
    monkeypatch.setattr(model, "metadata", None)
    with pytest.raises(ValueError, match="thing_dataset_id_to_contiguous_id"):
        run(model, inputs)


def test_negative_size_divisibility_means_the_backbones_own(model, monkeypatch):
    cfg = parity_models.config(CASE, "MODEL.MASK_FORMER.SIZE_DIVISIBILITY", -1)
    backbone = maskformer_model.build_backbone(cfg)
    monkeypatch.setattr(type(backbone), "size_divisibility", 64)
    built = maskformer_model.MaskFormer(cfg)
    assert built.size_divisibility == 64


def test_pixel_statistics_are_not_saved(model):
    assert not {"pixel_mean", "pixel_std"} & set(model.state_dict())
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "case",
    ["r50_panoptic", "swin_panoptic", "semask_panoptic", "maskformer_v1_res5"]
    + ["maskformer_v1_transformer_encoder"],
)
def test_a_whole_model_may_be_of_another_dtype(case, dtype):
    model = parity_models.model(case)
    image = torch.arange(3 * 64 * 96).view(3, 64, 96) % 251
    with torch.no_grad():
        (expected,) = model([{"image": image.float()}])
        model.to(dtype)
        for given in (image.to(torch.uint8), image.float()):
            (result,) = model([{"image": given}])
            scores = result["sem_seg"].float()
            error = (scores - expected["sem_seg"]).norm() / expected["sem_seg"].norm()
            # Random weights: bfloat16 autocast is 0.27 away in the worst of these cases.
            assert error < {torch.bfloat16: 0.5, torch.float16: 0.1, torch.float64: 1e-3}[dtype]


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated; Python ints in a trace
@pytest.mark.parametrize("case", ["r50_panoptic", "swin_panoptic"])
def test_the_network_can_be_traced(case):
    model, images = parity_models.model(case), torch.randn(1, 3, 64, 96)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model.predictions(images)["pred_masks"]

    with torch.no_grad():
        traced = torch.jit.trace(Network(), images)
        torch.testing.assert_close(traced(-images), Network()(-images), rtol=1e-3, atol=1e-3)
