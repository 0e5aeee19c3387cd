"""Starting from a checkpoint with another number of classes, through train_net.py's main."""

import logging

import pytest
import torch

from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from mask2former import add_maskformer2_config

CLASS_HEAD = "sem_seg_head.predictor.class_embed"


@pytest.fixture(scope="module")
def of_80_classes(tmp_path_factory):
    """A checkpoint of the tiny model as COCO instances would leave it; path and weights."""
    from engine.tiny import TINY

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(TINY)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 80])
    torch.manual_seed(3)
    weights = build_model(cfg).state_dict()
    path = tmp_path_factory.mktemp("coco") / "model_final.pth"
    torch.save({"model": weights}, path)
    return str(path), weights


def test_all_but_the_class_head_is_loaded_and_the_log_says_so(arguments, of_80_classes, caplog):
    from mask2former.engine import Trainer, setup

    path, weights = of_80_classes
    trainer = Trainer(setup(arguments("MODEL.WEIGHTS", path)))
    with caplog.at_level(logging.INFO, logger="mask2former"):
        logging.getLogger("mask2former").propagate = True
        trainer.resume_or_load(resume=False)
    parameters = dict(trainer.model.named_parameters())
    new = [k for k, v in parameters.items() if not _equal(v, weights[k])]
    assert new == [f"{CLASS_HEAD}.weight", f"{CLASS_HEAD}.bias"]
    assert "other shape 3" in caplog.text
    assert f"{CLASS_HEAD}.weight: (81, 32) in the file, (13, 32) here" in caplog.text
    assert "missing     0" in caplog.text


def _equal(here: torch.Tensor, there: torch.Tensor) -> bool:
    return here.shape == there.shape and bool(torch.equal(here.detach().cpu(), there))


def test_training_goes_on_from_it_and_saves_the_new_number_of_classes(
    arguments, of_80_classes, tmp_path
):
    from train_net import main

    main(arguments("MODEL.WEIGHTS", of_80_classes[0], "SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 0))
    saved = torch.load(tmp_path / "out" / "model_final.pth", weights_only=False)["model"]
    assert saved[f"{CLASS_HEAD}.bias"].shape == (13,)
