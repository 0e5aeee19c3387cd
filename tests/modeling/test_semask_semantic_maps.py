"""SeMask's branch: sum of class maps, label maps from any ground truth, the loss."""

import parity_cases
import parity_models
import pytest
import torch
import torch.nn.functional as F

from detectron2.structures import BitMasks, Instances
from mask2former.modeling.semantic_maps import (
    SemanticMapLoss,
    SemanticPrediction,
    semantic_target,
)

IGNORE = 255


def instances(masks: torch.Tensor, classes: list[int]) -> Instances:
    result = Instances(tuple(masks.shape[-2:]))
    result.gt_classes, result.gt_masks = torch.tensor(classes, dtype=torch.int64), masks
    return result


def target(record: dict, size=(4, 6)) -> torch.Tensor:
    return semantic_target(record, size, IGNORE, torch.device("cpu"))


def loss(prediction: dict, *truth: torch.Tensor) -> torch.Tensor:
    outputs = {"semantic": prediction, "pred_logits": torch.zeros(1)}
    return SemanticMapLoss(IGNORE)(outputs, [{"sem_seg": t} for t in truth], [], 1)["loss_cate"]


def test_sum_of_class_maps_equals_the_recorded_one():
    model = parity_models.model("semask_training")
    images = [
        torch.from_numpy(parity_cases.arrays("semask_training", "inputs")[f"image_{i}"])
        for i in range(2)
    ]
    with torch.no_grad():
        batch = model.preprocess_image([{"image": image} for image in images]).tensor
        _, semantic = model.sem_seg_head(*model.backbone(batch))
    expected = parity_cases.arrays("semask_training", "outputs_main")["semantic_head_pred"]
    torch.testing.assert_close(semantic["pred"], torch.from_numpy(expected), rtol=0, atol=1e-4)


def test_prediction_is_made_when_it_is_asked_for():
    maps = {"res3": torch.randn(1, 2, 3, 3), "res2": torch.randn(1, 2, 6, 6)}
    prediction = SemanticPrediction(maps)
    assert dict.keys(prediction) == {"aux"}
    assert "pred" in prediction
    assert prediction.get("pred").shape == (1, 2, 24, 24)
    assert prediction["pred"] is prediction["pred"]
    with pytest.raises(KeyError):
        prediction["other"]


def test_label_map_of_the_mapper_is_padded_with_the_ignore_label():
    labels = torch.randint(3, (3, 5), dtype=torch.uint8)
    padded = target({"sem_seg": labels})
    assert padded.dtype == torch.int64
    assert torch.equal(padded[:3, :5], labels.long())
    assert (padded[3:] == IGNORE).all() and (padded[:, 5:] == IGNORE).all()


def test_panoptic_segments_give_their_classes_and_void_is_ignored():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, :2], masks[1, 2:, :3] = True, True
    painted = target({"instances": instances(masks, [4, 1])})
    assert (painted[:2] == 4).all() and (painted[2:, :3] == 1).all()
    assert (painted[2:, 3:] == IGNORE).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_smaller_of_overlapping_instances_is_in_front(order):
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, :3], masks[1, 1:3, 2:4] = True, True
    classes = torch.tensor([7, 2])[list(order)].tolist()
    painted = target({"instances": instances(masks[list(order)], classes)})
    assert (painted[1:3, 2:4] == 2).all()
    assert (painted == 7).sum() == 18 - 4


def test_image_without_instances_is_ignored_as_a_whole():
    for masks in (torch.zeros(0, 3, 4, dtype=torch.bool), BitMasks(torch.zeros(0, 3, 4))):
        record = Instances((3, 4))
        record.gt_classes, record.gt_masks = torch.zeros(0, dtype=torch.int64), masks
        assert (target({"instances": record}) == IGNORE).all()


def test_loss_is_the_mean_over_labelled_pixels():
    logits = torch.randn(2, 3, 4, 4)
    truth = torch.randint(3, (2, 4, 4))
    truth[0, :2] = IGNORE
    expected = F.cross_entropy(logits, truth, ignore_index=IGNORE)
    torch.testing.assert_close(loss({"pred": logits}, *truth), expected)


def test_loss_without_any_labelled_pixel_is_zero_with_a_gradient_path():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = loss({"pred": logits}, torch.full((2, 2), IGNORE))
    value.backward()
    assert value == 0 and (logits.grad == 0).all()


def test_predictions_before_the_last_have_no_loss_of_their_own():
    outputs = {"pred_logits": torch.zeros(1)}
    assert SemanticMapLoss()(outputs, [], [], 1)["loss_cate"] == 0
