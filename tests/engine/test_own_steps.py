"""What users' trainers do with the inner trainer, and checkpoints that they save out of turn."""

import time

import pytest
import torch

from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer
from mask2former.engine import Trainer, setup

NO_TESTS = ("DATASETS.TEST", "()")


class OwnRunStep(Trainer):
    def run_step(self):
        inner = self._trainer
        inner.iter = self.iter
        start = time.perf_counter()
        data = next(inner._data_loader_iter)
        data_time = time.perf_counter() - start
        losses = inner.model(data)
        inner.optimizer.zero_grad()
        inner.grad_scaler.scale(sum(losses.values())).backward()
        inner._write_metrics(losses, data_time)
        inner.grad_scaler.step(inner.optimizer)
        inner.grad_scaler.update()


def final_weights(trainer_class, args, folder):
    trainer = trainer_class(setup(args))
    trainer.resume_or_load(resume=args.resume)
    trainer.train()
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_step_as_users_write_it_trains_as_ours(arguments, tmp_path):
    own, ours = tmp_path / "own", tmp_path / "ours"
    opts = (*NO_TESTS, "SOLVER.MAX_ITER", 3, "OUTPUT_DIR")
    expected = final_weights(Trainer, arguments(*opts, ours), ours)
    assert_same(final_weights(OwnRunStep, arguments(*opts, own), own), expected)


@pytest.mark.parametrize("step", [SimpleTrainer, AMPTrainer])
def test_detectron2s_steps_may_replace_ours(arguments, step):
    class Replaced(Trainer):
        def __init__(self, cfg):
            super().__init__(cfg)
            self._trainer = step(self.model, self.data_loader, self.optimizer)

    trainer = Replaced(setup(arguments(*NO_TESTS, "SOLVER.MAX_ITER", 1)))
    trainer.train()
    assert trainer.iter == 1


def test_a_checkpoint_saved_out_of_turn_resumes_to_the_bit(arguments, tmp_path):
    class SaveNow(HookBase):
        def after_step(self):
            if self.trainer.iter == 2:
                self.trainer.checkpointer.save("model_best", iteration=2)

    folder = tmp_path / "out"
    args = arguments(*NO_TESTS, "SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 2)
    trainer = Trainer(setup(args))
    trainer.register_hooks([SaveNow()])
    trainer.train()
    whole = torch.load(folder / "model_final.pth", weights_only=True)["model"]

    (folder / "last_checkpoint").write_text("model_best.pth")
    args.resume = True
    assert_same(final_weights(Trainer, args, folder), whole)
