"""What is watched: inference with post-processing, and a step of training, as users run them."""

from collections.abc import Callable

import torch

from detectron2.utils.events import EventStorage
from mask2former.benchmark.networks import inference, training
from mask2former.benchmark.networks.building import build_network
from mask2former.benchmark.networks.setting import Setting
from mask2former.engine.optimizer import build_optimizer
from mask2former.engine.precision import autocast_dtype
from mask2former.engine.train_step import TrainStep

INFERENCE, TRAINING = "inference", "training"


def inference_step(setting: Setting, to_device: Callable = lambda x: x) -> Callable[[], object]:
    """Network and post-processing of a batch; post-processing gets trained-like logits.

    Args:
        to_device: applied to the network and to the logits.
    """
    cfg = setting.config()
    subject = inference.Ours(build_network(cfg), cfg, setting)
    subject.network = to_device(subject.network)
    subject.trained = tuple(to_device(tensor) for tensor in subject.trained)

    def step() -> None:
        subject.logits()
        subject.segments()

    return step


def training_step(setting: Setting, to_device: Callable = lambda x: x) -> Callable[[], object]:
    """Batch to the device, losses, gradients, clipping, optimizer, and the losses for the log."""
    cfg = setting.config()
    network = build_network(cfg)
    batch = training.Ours(network, cfg, setting).batch
    network = to_device(network).train()
    dtype = None
    if setting.dtype != "float32":
        cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = True, setting.dtype
        dtype = autocast_dtype(cfg, torch.device(setting.device))
    trainer = TrainStep(network, None, build_optimizer(cfg, network), dtype=dtype)
    trainer._batches = iter(lambda: batch, None)
    trainer.iter = 0

    def step() -> None:
        with EventStorage(trainer.iter):
            trainer.run_step()
        trainer.iter += 1

    return step


STEPS = {INFERENCE: inference_step, TRAINING: training_step}
