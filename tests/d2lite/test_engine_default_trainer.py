"""DefaultTrainer, its setup, resuming, and the predictor, on a tiny model."""

import argparse
import json
import logging

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import (
    DefaultPredictor,
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY


@META_ARCH_REGISTRY.register()
class TinyRegression(nn.Module):
    """Fits random targets; in evaluation it returns the mean of the image."""

    def __init__(self, cfg):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def forward(self, batch):
        if not self.training:
            return [
                {"mean": b["image"].float().mean(), "size": (b["height"], b["width"])}
                for b in batch
            ]
        x = torch.stack([b["x"] for b in batch])
        return {"loss": (self.layers(x) - x.sum(dim=1, keepdim=True)).square().mean()}


class Trainer(DefaultTrainer):
    """Batches depend on the iteration only, so that a resumed run sees the same ones."""

    @classmethod
    def build_train_loader(cls, cfg):
        def batches():
            i = trainer_start.get("iter", 0)
            while True:
                generator = torch.Generator().manual_seed(i)
                yield [{"x": torch.randn(4, generator=generator)} for _ in range(4)]
                i += 1

        return batches()


trainer_start = {}


@pytest.fixture
def cfg(tmp_path):
    trainer_start.clear()
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "TinyRegression"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.DATASETS.TEST = ()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.SOLVER.MAX_ITER = 20
    cfg.SOLVER.STEPS = (8, 15)
    cfg.SOLVER.WARMUP_ITERS = 5
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.CHECKPOINT_PERIOD = 10
    cfg.SEED = 1
    return cfg


def run(cfg, start=0, resume=False):
    torch.manual_seed(0)
    trainer_start["iter"] = start
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


@pytest.mark.parametrize("amp", [False, True])
def test_ten_and_ten_iterations_equal_twenty_to_the_bit(cfg, tmp_path, amp):
    cfg.SOLVER.AMP.ENABLED = amp
    straight = run(cfg)

    class Interrupted(Exception):
        pass

    def stop(trainer):
        if trainer.iter == 10:
            raise Interrupted

    cfg.OUTPUT_DIR = str(tmp_path / "interrupted")
    torch.manual_seed(0)
    first = Trainer(cfg)
    first.register_hooks([hooks.CallbackHook(before_step=stop)])
    with pytest.raises(Interrupted):
        first.train()
    resumed = run(cfg, start=10, resume=True)

    assert resumed.start_iter == 10
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    a, b = straight.optimizer.state_dict(), resumed.optimizer.state_dict()
    assert a["param_groups"] == b["param_groups"]
    assert all(
        torch.equal(a["state"][i]["momentum_buffer"], b["state"][i]["momentum_buffer"])
        for i in a["state"]
    )
    assert straight.scheduler.state_dict() == resumed.scheduler.state_dict()


def test_the_checkpoint_holds_what_the_contract_says(cfg, tmp_path):
    cfg.SOLVER.AMP.ENABLED = True
    run(cfg)
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert set(checkpoint) == {"model", "trainer", "iteration"}
    assert checkpoint["iteration"] == 19
    assert set(checkpoint["trainer"]) == {"iteration", "hooks", "_trainer"}
    assert set(checkpoint["trainer"]["hooks"]) == {"LRScheduler"}
    assert set(checkpoint["trainer"]["_trainer"]) == {"iteration", "optimizer", "grad_scaler"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert (tmp_path / "model_0000009.pth").exists()


def test_the_files_of_a_run_are_there(cfg, tmp_path):
    run(cfg)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines[-1]["iteration"] == 19
    assert {"total_loss", "lr", "data_time", "time"} <= set(lines[-1])
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_default_hooks_come_in_their_order(cfg):
    cfg.TEST.PRECISE_BN.ENABLED = True
    kinds = [type(h).__name__ for h in Trainer(cfg)._hooks]
    assert kinds == [
        "IterationTimer",
        "LRScheduler",
        "PreciseBN",
        "PeriodicCheckpointer",
        "EvalHook",
        "PeriodicWriter",
    ]


def test_hooks_of_the_trainer_see_the_gradients(cfg):
    seen = []

    class Look(hooks.HookBase):
        def after_backward(self):
            seen.append(self.trainer.model.layers[0].weight.grad.abs().sum().item())

    trainer = Trainer(cfg)
    trainer.register_hooks([Look()])
    trainer.train()
    assert len(seen) == 20 and all(value > 0 for value in seen)


def test_parts_of_the_inner_trainer_can_be_read_and_replaced(cfg):
    trainer = Trainer(cfg)
    assert trainer.model is trainer._trainer.model
    trainer.data_loader = "other"
    assert trainer._trainer.data_loader == "other"


def test_training_improves_the_loss(cfg, tmp_path):
    cfg.SOLVER.MAX_ITER = 60
    cfg.SOLVER.STEPS = ()
    run(cfg)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert losses[-1] < losses[0]


@pytest.fixture
def test_set():
    name = "engine_test_set"
    DatasetCatalog.register(name, lambda: [{"x": i} for i in range(3)])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


class Counting(DatasetEvaluator):
    def reset(self):
        self.seen = 0

    def process(self, inputs, outputs):
        self.seen += len(inputs)

    def evaluate(self):
        return {"task": {"seen": self.seen}}


class Evaluating(Trainer):
    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        image = torch.ones(3, 2, 2)
        return [[{"image": image, "height": 2, "width": 2}]] * 3

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return Counting()


def test_one_test_set_gives_its_own_results_and_several_give_them_by_name(cfg):
    model = Trainer(cfg).model
    cfg.DATASETS.TEST = ("a",)
    assert Evaluating.test(cfg, model) == {"task": {"seen": 3}}
    cfg.DATASETS.TEST = ("a", "b")
    assert set(Evaluating.test(cfg, model)) == {"a", "b"}
    assert model.training  # the mode is restored


def test_without_an_evaluator_a_test_set_is_skipped_with_a_warning(cfg, caplog):
    class NoEvaluator(Evaluating):
        build_evaluator = classmethod(DefaultTrainer.build_evaluator.__func__)

    cfg.DATASETS.TEST = ("a",)
    assert NoEvaluator.test(cfg, nn.Identity()) == {}
    assert "build_evaluator" in caplog.text


def test_expected_results_are_verified_after_training(cfg):
    cfg.DATASETS.TEST = ("a",)
    cfg.SOLVER.MAX_ITER = 1
    cfg.TEST.EXPECTED_RESULTS = [["task", "seen", 3, 0.1]]
    assert Evaluating(cfg).train() == {"task": {"seen": 3}}
    cfg.TEST.EXPECTED_RESULTS = [["task", "seen", 9, 0.1]]
    with pytest.raises(SystemExit):
        Evaluating(cfg).train()


def test_scaling_to_more_workers_follows_the_linear_rule(cfg):
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    cfg.SOLVER.IMS_PER_BATCH = 16
    scaled = DefaultTrainer.auto_scale_workers(cfg, 16)
    assert (scaled.SOLVER.IMS_PER_BATCH, scaled.SOLVER.BASE_LR) == (32, 0.02)
    assert (scaled.SOLVER.MAX_ITER, scaled.SOLVER.STEPS) == (10, (4, 8))
    assert scaled.SOLVER.REFERENCE_WORLD_SIZE == 16
    assert cfg.SOLVER.IMS_PER_BATCH == 16
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 0
    assert DefaultTrainer.auto_scale_workers(cfg, 16) is cfg


# --- setup ------------------------------------------------------------------------------------


def test_parser_keeps_everything_after_the_first_pair_as_options():
    args = default_argument_parser().parse_args(
        ["--config-file", "x.yaml", "--num-gpus", "2", "MODEL.WEIGHTS", "w.pth", "--resume"]
    )
    assert (args.config_file, args.num_gpus, args.resume) == ("x.yaml", 2, False)
    assert args.opts == ["MODEL.WEIGHTS", "w.pth", "--resume"]
    defaults = default_argument_parser().parse_args([])
    assert (defaults.num_machines, defaults.machine_rank, defaults.opts) == (1, 0, [])
    port = int(defaults.dist_url.rsplit(":", 1)[1])
    assert defaults.dist_url.startswith("tcp://127.0.0.1:") and 49152 <= port < 65536


def test_setup_seeds_writes_the_config_and_logs_it(cfg, tmp_path, caplog):
    logging.getLogger("detectron2").propagate = True
    default_setup(cfg, argparse.Namespace(eval_only=True))
    first = (torch.rand(1), np.random.rand())
    default_setup(cfg, argparse.Namespace())
    second = (torch.rand(1), np.random.rand())
    assert first == second
    reloaded = get_cfg()
    reloaded.merge_from_file(str(tmp_path / "config.yaml"))
    assert reloaded.dump() == cfg.dump()
    text = (tmp_path / "log.txt").read_text()
    assert "Rank of current process: 0. World size: 1" in text
    assert "Running with full config" in text and "Environment info" in text


# --- predictor --------------------------------------------------------------------------------


def test_predictor_resizes_and_reports_the_original_size(cfg, test_set):
    cfg.DATASETS.TEST = (test_set,)
    cfg.INPUT.MIN_SIZE_TEST = 8
    predictor = DefaultPredictor(cfg)
    image = np.zeros((10, 20, 3), np.uint8)
    image[..., 2] = 90  # red, in BGR
    output = predictor(image)
    assert output["size"] == (10, 20)
    assert output["mean"].item() == pytest.approx(30)
    assert predictor.metadata.name == test_set
    assert not predictor.model.training


def test_predictor_refuses_unknown_channel_orders(cfg):
    cfg.INPUT.FORMAT = "YUV"
    with pytest.raises(AssertionError, match=r"INPUT\.FORMAT"):
        DefaultPredictor(cfg)
