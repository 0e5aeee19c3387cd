"""Test-time augmentation through the trainer: keys, folder, after training, wrong settings."""

import json

import pytest
import torch
from engine.tiny import TINY

from mask2former.engine import Trainer, setup
from mask2former.engine.checks import check_evaluation
from mask2former.engine.errors import ConfigError

AUGMENTED = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (64,), "TEST.AUG.MAX_SIZE", 96)


def test_semantic_results_get_a_suffix_and_a_folder_of_their_own(arguments, tmp_path):
    cfg = setup(arguments(*AUGMENTED, eval_only=True))
    model = Trainer.build_model(cfg)
    plain = Trainer.test(cfg, model)
    augmented = Trainer.test_with_TTA(cfg, model)
    assert {"panoptic_seg", "sem_seg"} <= plain.keys()
    assert list(augmented) == ["sem_seg_TTA"]
    assert augmented["sem_seg_TTA"].keys() == plain["sem_seg"].keys()
    files = sorted(path.name for path in (tmp_path / "out/inference_TTA").iterdir())
    assert files == ["sem_seg_evaluation.pth", "sem_seg_predictions.json"]
    assert model.panoptic_on and model.instance_on


@pytest.mark.parametrize("after_training", [True, False])
def test_after_training_only_by_key(after_training, arguments, tmp_path):
    key = ("TEST.AUG.AFTER_TRAINING", after_training)
    cfg = setup(arguments(*AUGMENTED, *key, "SOLVER.MAX_ITER", 1, "TEST.VIS_IMAGES", 0))
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    last = json.loads((tmp_path / "out/metrics.json").read_text().splitlines()[-1])
    assert "sem_seg/mIoU" in last
    assert ("sem_seg_TTA/mIoU" in last) == after_training


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.COCO_EVAL", "quick"], "TEST.COCO_EVAL must be fast or pycocotools"),
        (["TEST.AUG.AFTER_TRAINING", True], "TEST.AUG.AFTER_TRAINING needs TEST.AUG.ENABLED"),
        ([*AUGMENTED, "TEST.AUG.MIN_SIZES", ()], "TEST.AUG.MIN_SIZES is empty"),
        (
            [*AUGMENTED, "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False],
            "MODEL.MASK_FORMER.TEST.SEMANTIC_ON True, or TEST.AUG.ENABLED False",
        ),
        ([*AUGMENTED, "DATASETS.TEST", ("coco_2017_val",)], "coco_2017_val is an instance set"),
    ],
)
def test_settings_that_cannot_mean_anything_are_refused(opts, message, arguments):
    from mask2former.engine.setup import load_config

    cfg = load_config(TINY, [str(opt) for opt in opts], need_data=False)
    with pytest.raises(ConfigError, match=message):
        check_evaluation(cfg, eval_only=True)


def test_augmentation_in_a_training_config_is_left_alone():
    from mask2former.engine.setup import load_config

    opts = [*AUGMENTED, "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False]
    cfg = load_config(TINY, [str(opt) for opt in opts], need_data=False)
    check_evaluation(cfg, eval_only=False)  # TTA only runs in --eval-only
