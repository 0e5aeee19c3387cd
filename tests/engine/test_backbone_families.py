"""Every backbone family trains a step and evaluates, for the three tasks, on the synthetic set."""

import pytest
import torch
from engine.tiny import REPO

from detectron2.modeling import build_model
from detectron2.structures import Instances
from mask2former.engine import Trainer, setup
from mask2former.engine.optimizer import build_optimizer
from mask2former.engine.setup import load_config

SHAPES = REPO / "configs" / "shapes"
FAMILIES = (
    "convnext_tiny_timm",
    "beit_adapter_tiny",
    "dinov2_adapter_tiny",
    "dinov3_adapter_tiny",
    "dinat_tiny",
)
TASKS = {
    "panoptic": ("panoptic_train", "panoptic_val_with_sem_seg", "panoptic_seg"),
    "instance": ("instance_train", "instance_val", "segm"),
    "semantic": ("sem_seg_train", "sem_seg_val", "sem_seg"),
}
# Cut down further: one small step is enough to show that everything fits together.
SMALL = ["SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0]
SMALL += ["TEST.EVAL_PERIOD", 0, "TEST.VIS_IMAGES", 0, "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 64]
SMALL += ["MODEL.MASK_FORMER.DEC_LAYERS", 3, "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_trained_and_evaluated(family, task, arguments):
    train, test, metric = TASKS[task]
    file = SHAPES / f"{task}-segmentation" / f"maskformer2_{family}.yaml"
    sets = [
        "DATASETS.TRAIN",
        f"('tinyshapes_{train}',)",
        "DATASETS.TEST",
        f"('tinyshapes_{test}',)",
    ]
    args = arguments(*sets, *SMALL, config_file=str(file))
    trainer = Trainer(setup(args))
    before = [p.detach().clone() for p in trainer.model.backbone.parameters()]
    trainer.train()
    moved = [not torch.equal(a, b) for a, b in zip(before, trainer.model.backbone.parameters())]
    assert sum(moved) > 0.9 * len(moved)
    assert metric in trainer._last_eval_results


def test_the_loss_of_a_dino_with_an_adapter_falls_on_a_fixed_batch():
    file = SHAPES / "panoptic-segmentation" / "maskformer2_dinov2_adapter_tiny.yaml"
    cfg = load_config(str(file), ["MODEL.DEVICE", "cpu", *map(str, SMALL)], need_data=False)
    torch.manual_seed(0)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, :32], masks[1, 32:, 20:70] = True, True
    instances = Instances((64, 96), gt_classes=torch.tensor([0, 3]), gt_masks=masks)
    image = torch.where(masks[1], 200.0, 30.0).expand(3, -1, -1)
    losses = []
    for _ in range(10):
        loss = sum(model([{"image": image, "instances": instances}]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
