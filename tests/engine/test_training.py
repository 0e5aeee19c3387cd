"""Training a tiny model: files, exact resumption, divergence, broken images, pictures."""

import json
import logging

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase
from mask2former.engine import Trainer, TrainingDiverged, WeightsError, setup
from mask2former.engine.train_step import TrainStep

NO_TESTS = ("DATASETS.TEST", "()")


class Losses(HookBase):
    """Keeps every total loss, as the writers would see it."""

    def __init__(self):
        self.values = {}

    def after_step(self):
        self.values[self.trainer.iter] = self.trainer.storage.history("total_loss").latest()


def train(args, *hooks):
    trainer = Trainer(setup(args))
    trainer.register_hooks(hooks)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()
    return trainer


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def assert_same_state(a, b):
    assert a["model"].keys() == b["model"].keys()
    for name in a["model"]:
        assert torch.equal(a["model"][name], b["model"][name]), name
    old, new = (s["trainer"]["_trainer"]["optimizer"]["state"] for s in (a, b))
    assert all(torch.equal(old[i][k], new[i][k]) for i in old for k in old[i])


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """The folder and the losses of the first uninterrupted run of 20 iterations."""
    return {}


def uninterrupted(twenty, arguments, tmp_path):
    if not twenty:
        losses, folder = Losses(), tmp_path / "whole"
        train(arguments(*NO_TESTS, "SOLVER.MAX_ITER", 20, "OUTPUT_DIR", folder), losses)
        twenty.update(state=final(folder), losses=losses.values)
    return twenty


@pytest.mark.parametrize("workers", [0, 1])
def test_ten_and_resumed_ten_equal_twenty_to_the_bit(arguments, tmp_path, twenty, workers):
    whole = uninterrupted(twenty, arguments, tmp_path)
    opts = (*NO_TESTS, "DATALOADER.NUM_WORKERS", workers)
    first, second = Losses(), Losses()
    train(arguments(*opts, "SOLVER.MAX_ITER", 10), first)
    torch.manual_seed(999)  # nothing may hang on what the process drew in between
    np.random.seed(999)
    trainer = train(arguments(*opts, "SOLVER.MAX_ITER", 20, resume=True), second)
    assert trainer.start_iter == 10
    assert {**first.values, **second.values} == whole["losses"]
    assert_same_state(final(tmp_path / "out"), whole["state"])


def test_resuming_another_network_is_refused(arguments):
    # torch's fused step does not look at shapes: it would corrupt memory.
    train(arguments(*NO_TESTS, "SOLVER.MAX_ITER", 1))
    trainer = Trainer(setup(arguments(*NO_TESTS, "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 3)))
    with pytest.raises(WeightsError, match=r"give the file as MODEL\.WEIGHTS with a new"):
        trainer.resume_or_load(resume=True)


def test_killed_run_continues_from_its_last_checkpoint(arguments, tmp_path, twenty):
    class Kill(HookBase):
        def after_step(self):
            if self.trainer.iter == 13:
                raise KeyboardInterrupt

    whole = uninterrupted(twenty, arguments, tmp_path)
    # Evaluation in between must not change what is drawn afterwards.
    opts = ("SOLVER.MAX_ITER", 20, "SOLVER.CHECKPOINT_PERIOD", 8, "TEST.EVAL_PERIOD", 4)
    with pytest.raises(KeyboardInterrupt):
        train(arguments(*opts), Kill())
    losses = Losses()
    trainer = train(arguments(*opts, resume=True), losses)
    assert trainer.start_iter == 8
    assert losses.values == {i: v for i, v in whole["losses"].items() if i >= 8}
    assert_same_state(final(tmp_path / "out"), whole["state"])


def test_run_leaves_the_published_files(arguments, tmp_path):
    train(arguments("SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2))
    folder = tmp_path / "out"
    names = {p.name for p in folder.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "last_checkpoint", "inference"} <= names
    assert {"model_0000001.pth", "model_0000003.pth", "model_final.pth"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    state = final(folder)
    assert state["iteration"] == state["trainer"]["iteration"] == 3
    assert {"LRScheduler", "RandomState"} <= state["trainer"]["hooks"].keys()


def test_metrics_of_all_tasks_are_logged_during_training(arguments, tmp_path):
    train(arguments("SOLVER.MAX_ITER", 5))
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()
    ]
    keys = {key for row in rows for key in row}
    assert {"panoptic_seg/PQ", "segm/AP", "sem_seg/mIoU", "loss_ce", "total_loss", "lr"} <= keys
    assert {"time", "data_time", "iteration"} <= keys


def test_console_line_has_eta_data_time_and_memory(arguments, tmp_path):
    train(arguments(*NO_TESTS, "SOLVER.MAX_ITER", 6))
    lines = (tmp_path / "out" / "log.txt").read_text().splitlines()
    (line,) = (line for line in lines if "iter: 5" in line)
    for column in (
        "eta: 0:00:00",
        "total_loss: ",
        "time: ",
        "data_time: ",
        "lr: 0.0001",
        "max_mem: ",
    ):
        assert column in line


def test_prediction_pictures_go_to_tensorboard(arguments, tmp_path, tiny_sets):
    train(arguments("SOLVER.MAX_ITER", 1, "TEST.VIS_IMAGES", 2))
    events = EventAccumulator(str(tmp_path / "out")).Reload()
    names = [f"{tiny_sets[1]}/{i}_input_truth_prediction" for i in range(2)]
    assert events.Tags()["images"] == names
    picture = events.Images(names[0])[0]
    assert picture.width >= 3 * 64


def test_non_finite_loss_names_the_circumstances_and_keeps_the_checkpoint(arguments, tmp_path):
    class Break(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                with torch.no_grad():
                    self.trainer.model.sem_seg_head.predictor.class_embed.bias.fill_(float("nan"))

    args = arguments(*NO_TESTS, "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2)
    with pytest.raises(TrainingDiverged) as caught:
        train(args, Break())
    message = str(caught.value)
    assert "iteration 2" in message
    assert "prediction 'final'" in message
    assert message.count(".jpg") == 2
    assert "learning rate 0.0001" in message
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_0000001.pth"
    state = torch.load(tmp_path / "out" / "model_0000001.pth", weights_only=True)["model"]
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "Training stopped: Training diverged" in log
    assert "Traceback" not in log


def test_non_finite_loss_without_a_layer_names_all_images():
    class Model(torch.nn.Linear):
        def forward(self, batch):
            return {"loss_x": self.weight.sum() * float("inf")}

    model = Model(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    step = TrainStep(model, [[{"file_name": "a.jpg"}, {"file_name": "b.jpg"}]], optimizer)
    step.iter = 41
    with pytest.raises(
        TrainingDiverged, match=r"iteration 41: .*a\.jpg, b\.jpg; learning rate 0\.5"
    ):
        step.run_step()


@pytest.mark.parametrize("name", ["bfloat16"])
def test_mixed_precision_trains_on_the_cpu(arguments, name):
    amp = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", name)
    losses = Losses()
    train(arguments(*NO_TESTS, *amp, "SOLVER.MAX_ITER", 2), losses)
    assert np.isfinite(list(losses.values.values())).all()


@pytest.fixture
def broken_set(tmp_path):
    """Its own copy of the pictures, one training and one validation image of which are broken."""
    from mask2former.data.datasets.register_shapes import register_all_shapes
    from mask2former.data.shapes import SceneSpec, ShapesSpec, prepare_shapes

    scene = SceneSpec(min_side=64, max_side=80, max_things=3)
    spec = ShapesSpec(train=3, val=3, scene=scene)
    prepare_shapes(tmp_path / "shapes", spec, workers=1, progress=False)
    prefix = f"broken_{tmp_path.name}"
    register_all_shapes(str(tmp_path), prefix=prefix)
    for split in ("train", "val"):
        victim = sorted((tmp_path / "shapes" / split).iterdir())[1]
        victim.write_bytes(victim.read_bytes()[:100])
    yield f"{prefix}_panoptic"
    for name in [n for n in MetadataCatalog.list() if n.startswith(prefix)]:
        MetadataCatalog.remove(name)


def sets(broken_set):
    return (
        *("DATASETS.TRAIN", f"('{broken_set}_train',)"),
        *("DATASETS.TEST", f"('{broken_set}_val_with_sem_seg',)"),
    )


def test_broken_training_images_are_replaced_and_counted(arguments, broken_set, tmp_path):
    train(arguments(*sets(broken_set), *NO_TESTS, "SOLVER.MAX_ITER", 4))
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "Training: " in log
    assert "from 1 undecodable files were left out" in log


def test_broken_test_image_stops_the_evaluation_and_is_named(arguments, broken_set):
    cfg = setup(arguments(*sets(broken_set), eval_only=True))
    with pytest.raises(Exception, match=r"Cannot decode .*ON_CORRUPT_IMAGE"):
        Trainer.test(cfg, Trainer.build_model(cfg))


def test_broken_test_image_is_skipped_if_configured(arguments, broken_set, caplog):
    args = arguments(*sets(broken_set), "TEST.ON_CORRUPT_IMAGE", "skip", eval_only=True)
    cfg = setup(args)
    logging.getLogger("mask2former").propagate = True
    with caplog.at_level(logging.WARNING, logger="mask2former"):
        results = Trainer.test(cfg, Trainer.build_model(cfg))
    assert {"panoptic_seg", "segm", "sem_seg"} <= results.keys()
    assert "Evaluation: 1 samples from 1 undecodable files" in caplog.text
