"""Semantic test-time augmentation: the mean over resized and mirrored copies, mirrored back."""

import parity_models
import pytest
import torch
from torch import nn

import mask2former
from detectron2.modeling import DatasetMapperTTA
from mask2former import SemanticSegmentorWithTTA


class RedChannel(nn.Module):
    """Scores are the image's own channels at the requested size: easy to follow by hand."""

    def __init__(self):
        super().__init__()
        self.batch_sizes, self.sizes, self.others = [], [], []
        self.panoptic_on, self.instance_on = True, False

    def forward(self, batched_inputs):
        (record,) = batched_inputs
        self.sizes.append(tuple(record["image"].shape[1:]))
        self.others.append((self.panoptic_on, self.instance_on))
        image = record["image"][None].float()
        size = (record["height"], record["width"])
        return [{"sem_seg": nn.functional.interpolate(image, size, mode="nearest")[0]}]


@pytest.fixture
def cfg():
    cfg = parity_models.default_config()
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP = (16, 32), 40, True
    return cfg


def gradient(height=16, width=24):
    """Darker on the left: a copy that is not mirrored back would show."""
    row = torch.linspace(0, 250, width).to(torch.uint8)
    return row.expand(3, height, width).contiguous()


def test_every_size_runs_plain_and_mirrored_one_at_a_time(cfg):
    model = RedChannel()
    SemanticSegmentorWithTTA(cfg, model)([{"image": gradient(), "height": 16, "width": 24}])
    # 32 would give 48 on the longer side, which MAX_SIZE limits to 40.
    assert model.sizes == [(16, 24), (16, 24), (27, 40), (27, 40)]


def test_mirrored_copies_are_mirrored_back(cfg):
    cfg.TEST.AUG.MIN_SIZES = (16,)
    image = gradient()
    record = {"image": image, "height": 16, "width": 24}
    (result,) = SemanticSegmentorWithTTA(cfg, RedChannel())([record])
    assert list(result) == ["sem_seg"]
    torch.testing.assert_close(result["sem_seg"], image.float())


def test_other_outputs_are_off_during_augmentation_and_restored_after(cfg):
    model = RedChannel()
    SemanticSegmentorWithTTA(cfg, model)([{"image": gradient(), "height": 16, "width": 24}])
    assert set(model.others) == {(False, False)}
    assert (model.panoptic_on, model.instance_on) == (True, False)


def test_inputs_stay_as_they_are_and_sizes_default_to_the_image(cfg):
    record = {"image": gradient()}
    (result,) = SemanticSegmentorWithTTA(cfg, RedChannel())([record])
    assert list(record) == ["image"]
    assert result["sem_seg"].shape == (3, 16, 24)


def test_an_image_can_be_read_from_its_file(cfg, tmp_path):
    from PIL import Image

    Image.fromarray(gradient().permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    cfg.TEST.AUG.MIN_SIZES = (16,)
    model = RedChannel()
    (result,) = SemanticSegmentorWithTTA(cfg, model)([{"file_name": str(tmp_path / "image.png")}])
    torch.testing.assert_close(result["sem_seg"], gradient().float())


@pytest.mark.parametrize("case", ["r50_panoptic", "r50_semantic_postafter"])
def test_result_is_the_mean_of_single_predictions(case):
    model = parity_models.model(case)
    cfg = parity_models.config(case, "TEST.AUG.MIN_SIZES", (64, 96), "TEST.AUG.MAX_SIZE", 128)
    record = parity_models.batched_inputs(case)[0]
    expected = []
    for copy in DatasetMapperTTA(cfg)(record):
        with torch.no_grad():
            scores = model([copy])[0]["sem_seg"]
        flipped = "Flip" in repr(copy["transforms"].transforms)
        expected.append(scores.flip(2) if flipped else scores)
    assert len(expected) == 4
    (result,) = SemanticSegmentorWithTTA(cfg, model)([record])
    torch.testing.assert_close(result["sem_seg"], sum(expected) / 4)


def test_wrapped_model_is_unwrapped_and_wrong_use_refused(cfg):
    with pytest.raises(ValueError, match="batch_size must be 1"):
        SemanticSegmentorWithTTA(cfg, RedChannel(), batch_size=2)
    model = RedChannel()
    model.semantic_on = False
    with pytest.raises(ValueError, match=r"SEMANTIC_ON True or TEST\.AUG\.ENABLED False"):
        SemanticSegmentorWithTTA(cfg, model)


def test_published_name():
    assert mask2former.SemanticSegmentorWithTTA is SemanticSegmentorWithTTA


def test_no_copies_are_refused(cfg):
    segmentor = SemanticSegmentorWithTTA(cfg, RedChannel(), tta_mapper=lambda record: [])
    with pytest.raises(ValueError, match=r"TEST\.AUG\.MIN_SIZES is empty"):
        segmentor([{"image": gradient()}])
