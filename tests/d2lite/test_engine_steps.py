"""A training step: losses, gradients, metrics, mixed precision."""

import logging

import pytest
import torch
from torch import nn
from two_losses import LossModel, simple_trainer

from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils.events import EventStorage


def test_a_step_sums_the_losses_and_stores_them():
    trainer = simple_trainer()
    trainer.train(0, 1)
    assert trainer.model.weight.item() == pytest.approx(1 - 0.1 * (1 + 2))
    latest = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert latest["total_loss"] == pytest.approx(3.0)
    assert (latest["loss_a"], latest["loss_b"]) == pytest.approx((1.0, 2.0))
    assert {"data_time", "rank_data_time"} <= set(latest)


def test_a_model_may_return_one_tensor():
    trainer = simple_trainer()
    trainer.model.forward = lambda data: (trainer.model.weight * data).sum()
    trainer.train(0, 1)
    assert trainer.storage.latest()["total_loss"][0] == pytest.approx(1.0)


def test_a_non_finite_loss_stops_before_the_weights_change():
    trainer = simple_trainer(batches=[1.0, float("nan")])
    with pytest.raises(FloatingPointError, match="iteration=1"):
        trainer.train(0, 2)
    assert torch.isfinite(trainer.model.weight).all()


def test_losses_are_stored_only_every_gather_period():
    trainer = simple_trainer(gather_metric_period=2)
    trainer.train(0, 4)
    iterations = [i for _, i in trainer.storage.history("total_loss").values()]
    assert iterations == [1, 3]


def test_asynchronous_metrics_lose_nothing():
    trainer = simple_trainer(async_write_metrics=True)
    trainer.train(0, 4)
    values = trainer.storage.history("loss_a").values()
    assert [i for _, i in values] == [0, 1, 2, 3]


def test_evaluation_mode_is_noticed():
    trainer = simple_trainer()
    trainer.model.eval()
    with pytest.raises(AssertionError, match="evaluation mode"):
        trainer.train(0, 1)


def test_gradients_are_cleared_between_steps_either_way():
    for before in (False, True):
        trainer = simple_trainer(zero_grad_before_forward=before)
        trainer.train(0, 2)
        assert trainer.model.weight.grad.item() == pytest.approx(2 + 2)


def test_amp_on_a_cpu_trains_and_its_state_travels(caplog):
    with caplog.at_level(logging.INFO):
        trainer = simple_trainer(trainer=AMPTrainer)
    text = caplog.text
    assert trainer.precision in (torch.float32, torch.bfloat16)
    assert ("float32" in text) if trainer.precision is torch.float32 else ("bfloat16" in text)
    trainer.train(0, 1)
    assert trainer.model.weight.item() == pytest.approx(0.7, abs=1e-2)
    state = trainer.state_dict()
    assert set(state) == {"iteration", "optimizer", "grad_scaler"}
    simple_trainer(trainer=AMPTrainer).load_state_dict(state)


def test_amp_runs_the_forward_under_bfloat16_autocast_where_it_is_chosen():
    trainer = simple_trainer(trainer=AMPTrainer)
    trainer.precision = torch.bfloat16
    seen = []
    linear = nn.Linear(2, 2)

    def forward(data):
        out = linear(torch.ones(1, 2))
        seen.append(out.dtype)
        return out.sum().float() * 0 + trainer.model.weight.sum()

    trainer.model.forward = forward
    trainer.train(0, 1)
    assert seen == [torch.bfloat16]


@pytest.mark.gpu
def test_amp_on_a_gpu_scales_and_unscales():
    model = LossModel().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AMPTrainer(model, [torch.ones(1, device="cuda")] * 3, optimizer)
    trainer.train(0, 1)
    assert model.weight.item() == pytest.approx(0.7, abs=1e-2)
    assert trainer.state_dict()["grad_scaler"]["scale"] > 1


def test_write_metrics_can_be_called_directly():
    with EventStorage(7) as storage:
        SimpleTrainer.write_metrics({"loss": torch.tensor(2.0)}, 0.5, cur_iter=7, prefix="x/")
    assert storage.latest()["x/total_loss"] == (2.0, 7)
