"""A tiny SeMask-Swin model trains a step and is evaluated, for every task; so does one with IBS."""

import json

import pytest
from engine.tiny import TINY

from mask2former.engine import Trainer, setup

SEMASK = TINY.replace("tiny.yaml", "tiny_semask.yaml")
TASKS = {
    "panoptic": ("panoptic_train", "panoptic_val_with_sem_seg", "coco_panoptic_lsj", 12),
    "instance": ("instance_train", "instance_val", "coco_instance_lsj", 6),
    "semantic": ("sem_seg_train", "sem_seg_val", "mask_former_semantic", 12),
}
RESULTS = {"panoptic": "panoptic_seg/PQ", "instance": "segm/AP", "semantic": "sem_seg/mIoU"}


def options(task: str) -> list:
    train, test, mapper, num_classes = TASKS[task]
    on = {name: name.lower() == task for name in ("PANOPTIC", "INSTANCE", "SEMANTIC")}
    switches = [x for n, v in on.items() for x in (f"MODEL.MASK_FORMER.TEST.{n}_ON", v)]
    return [
        *("DATASETS.TRAIN", f"('tinyshapes_{train}',)"),
        *("DATASETS.TEST", f"('tinyshapes_{test}',)"),
        *("INPUT.DATASET_MAPPER_NAME", mapper),
        *("INPUT.MIN_SIZE_TRAIN", "(48, 64)", "INPUT.CROP.SIZE", "(48, 48)"),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", num_classes),
        *("SOLVER.MAX_ITER", 1),
        *switches,
    ]


@pytest.mark.parametrize("extra", [(), ("MODEL.SWIN.USE_CHECKPOINT", True)])
@pytest.mark.parametrize("task", TASKS)
def test_it_trains_a_step_and_is_evaluated(arguments, tmp_path, task, extra):
    trainer = Trainer(setup(arguments(*options(task), *extra, config_file=SEMASK)))
    trainer.resume_or_load(resume=False)
    trainer.train()
    lines = [json.loads(x) for x in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    logged = {name: value for line in lines for name, value in line.items()}
    assert logged["loss_cate"] > 0
    assert logged["loss_cate_0"] == 0
    assert RESULTS[task] in logged


def test_intra_batch_supervision_trains_beside_it(arguments, tmp_path):
    ibs = ["MODEL.MASK_FORMER.APPLY_IBS", True, "MODEL.MASK_FORMER.IBS_WEIGHT", 10.0]
    ibs += ["MODEL.MASK_FORMER.IBS_POINT_SAMPLING", True]
    ibs += ["MODEL.MASK_FORMER.IBS_COUNT_CLASS_ZERO", True, "DATASETS.TEST", "()"]
    trainer = Trainer(setup(arguments(*options("panoptic"), *ibs, config_file=SEMASK)))
    trainer.train()
    logged = json.loads((tmp_path / "out" / "metrics.json").read_text().splitlines()[0])
    assert logged["loss_mask_ibs"] > 0
    assert "loss_mask_ibs_0" not in logged
