"""The trainer of Mask2Former: what detectron2's DefaultTrainer builds, with our parts."""

import inspect
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, create_ddp_model
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import build_model
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import (
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from mask2former.data.build import build_test_loader, build_train_loader
from mask2former.evaluation import build_evaluator
from mask2former.inference.tiling import tiled
from mask2former.modeling.compiling import compile_for_training
from mask2former.modeling.fast_inference import compact_outputs
from mask2former.modeling.fast_training import prepare_for_training
from mask2former.test_time_augmentation import SemanticSegmentorWithTTA

from .checkpoint import Checkpointer
from .checks import settings_errors, unknown_part
from .console import ConsoleLine, ProgressBar
from .corrupt_images import CorruptImagesReport, reporting
from .logs import one_line_user_errors
from .optimizer import build_optimizer
from .pictures import PredictionPictures
from .precision import autocast_dtype
from .random_state import RandomState, kept_random_state
from .train_step import TrainStep

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """DefaultTrainer with the published builders, exact resumption, and training without a GPU.

    ::

        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
    """

    def __init__(self, cfg: CfgNode):
        # The order is DefaultTrainer's; its constructor is passed over because it fixes the step,
        # the checkpointer and (on CPU) the DDP arguments.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = prepare_for_training(self.build_model(cfg), cfg)
        optimizer = self.build_optimizer(cfg, model)
        dtype = autocast_dtype(cfg, next(model.parameters()).device)
        if cfg.SOLVER.COMPILE:
            compile_for_training(model)
        model = _distributed(model)
        self._trainer = TrainStep(model, None, optimizer, dtype=dtype)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @property
    def data_loader(self) -> Iterable:
        """The training loader; built when first needed, at the iteration training starts from."""
        if self._trainer.data_loader is None:
            self._trainer.data_loader = self._loader_from(self.start_iter)
        return self._trainer.data_loader

    @data_loader.setter
    def data_loader(self, loader: Iterable) -> None:
        self._trainer.data_loader = loader

    def _loader_from(self, start_iter: int) -> Iterable:
        accepts_start = "start_iter" in inspect.signature(self.build_train_loader).parameters
        if accepts_start:
            return self.build_train_loader(self.cfg, start_iter=start_iter)
        if start_iter:
            logger.warning(
                "build_train_loader of %s takes no start_iter: the order of the training images "
                "starts anew at the resumed iteration",
                type(self).__name__,
            )
        return self.build_train_loader(self.cfg)

    def train(self) -> OrderedDict | None:
        """Trains from ``start_iter`` to SOLVER.MAX_ITER; see DefaultTrainer.train."""
        with one_line_user_errors():
            return super().train()

    def before_train(self) -> None:
        outer = weakref.proxy(self)
        # The inner trainer takes the step, this one has the hooks that look at the gradients.
        self._trainer.after_backward = lambda: outer.after_backward()
        self._trainer.data_loader = self.data_loader
        if isinstance(self._trainer, TrainStep):  # not a step of the user's own
            self._trainer.start_loading()
        super().before_train()

    def build_hooks(self) -> list[HookBase | None]:
        hooks = super().build_hooks()
        # Before the checkpointer, which is the third from the end on the main process (checkpoints,
        # evaluation, writers); other ranks only evaluate there.
        period = self.cfg.SOLVER.CHECKPOINT_PERIOD
        hooks.insert(len(hooks) - (3 if comm.is_main_process() else 1), RandomState(period))
        if comm.is_main_process():
            hooks.insert(len(hooks) - 1, ProgressBar())
        if self.cfg.TEST.AUG.ENABLED and self.cfg.TEST.AUG.AFTER_TRAINING:
            # Before the writers, which then have its results too.
            hooks.insert(
                len(hooks) - (1 if comm.is_main_process() else 0),
                EvalHook(0, lambda: self.test_with_TTA(self.cfg, self.model)),
            )
        return [*hooks[:-1], CorruptImagesReport(), hooks[-1]]

    def build_writers(self) -> list[EventWriter]:
        """Console, ``metrics.json`` and TensorBoard."""
        folder = self.cfg.OUTPUT_DIR
        os.makedirs(folder, exist_ok=True)
        return [
            ConsoleLine(self.max_iter),
            JSONWriter(os.path.join(folder, "metrics.json")),
            TensorboardXWriter(folder),
        ]

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        try:
            model = build_model(cfg)
        except KeyError as error:
            raise unknown_part(error, cfg) or error from None
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
        name = type(model).__name__
        logger.info("Model: %s, %.2f M parameters, %.2f M of them trained", name, millions, trained)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        with settings_errors():
            return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer):
        """detectron2's schedules and DeepLab's WarmupPolyLR, by SOLVER.LR_SCHEDULER_NAME."""
        with settings_errors():
            return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_iter: int = 0) -> Iterable:
        return build_train_loader(cfg, start_iter=start_iter)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        return reporting(build_test_loader(cfg, dataset_name))

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """The evaluators of mask2former/evaluation/build.py; in training also pictures."""
        evaluator = build_evaluator(cfg, dataset_name, output_folder)
        if cfg.TEST.VIS_IMAGES < 1 or not _in_training():
            return evaluator
        pictures = PredictionPictures(dataset_name, cfg.TEST.VIS_IMAGES)
        return DatasetEvaluators([evaluator, pictures])

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> OrderedDict:
        """Evaluates on every set of DATASETS.TEST; training goes on as if it had not happened."""
        _share_batch_statistics(model)
        evaluated = tiled(model, cfg)
        # Tiles are joined, and augmented images averaged, by their scores.
        needs_scores = evaluated is not model or isinstance(model, SemanticSegmentorWithTTA)
        compact = cfg.MODEL.FAST and evaluators is None and not needs_scores
        with kept_random_state(), compact_outputs(model) if compact else nullcontext():
            return super().test(cfg, evaluated, evaluators)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict:
        """Semantic evaluation with test-time augmentation; keys get the suffix ``_TTA``.

        Panoptic and instance outputs cannot be averaged: their evaluators are left out.
        """
        logger.info("Running inference with test-time augmentation ...")
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        semantic = cfg.clone()
        semantic.defrost()
        outputs = semantic.MODEL.MASK_FORMER.TEST
        outputs.PANOPTIC_ON = outputs.INSTANCE_ON = semantic.SAVE_PREDICTIONS = False
        evaluators = [cls.build_evaluator(semantic, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, SemanticSegmentorWithTTA(cfg, model), evaluators)
        # With several test sets the names of the sets come first, and get the suffix, as published.
        return OrderedDict((f"{name}_TTA", metrics) for name, metrics in results.items())


def _share_batch_statistics(model: nn.Module) -> None:
    """Gives all processes the running statistics of the first, which are those that are saved.

    Training keeps them apart (as published, ``broadcast_buffers=False``), so without this each
    process would evaluate its share of the images with a model of its own.
    """
    if comm.get_world_size() == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            dist.broadcast(module.running_mean, 0)
            dist.broadcast(module.running_var, 0)


def _in_training() -> bool:
    try:
        get_event_storage()
    except AssertionError:  # detectron2's way to say that there is none
        return False
    return True


def _distributed(model: nn.Module) -> nn.Module:
    # detectron2's helper names a CUDA device; a CPU module must not have one.
    on_cpu = next(model.parameters()).device.type == "cpu"
    options = {"device_ids": None} if on_cpu else {}
    return create_ddp_model(model, broadcast_buffers=False, **options)
