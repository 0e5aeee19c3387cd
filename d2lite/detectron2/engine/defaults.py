"""The default trainer, and (re-exported) the other defaults of training and prediction scripts."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from detectron2._missing import missing_getattr
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data import transforms as T
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from . import hooks
from .auto_scale import auto_scale_workers
from .predictor import DefaultPredictor
from .setup import create_ddp_model, default_argument_parser, default_setup, default_writers
from .train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase

__all__ = [
    "AMPTrainer",
    "CfgNode",
    "CommonMetricPrinter",
    "DatasetEvaluator",
    "DefaultPredictor",
    "DefaultTrainer",
    "DetectionCheckpointer",
    "JSONWriter",
    "MetadataCatalog",
    "PathManager",
    "SimpleTrainer",
    "T",
    "TensorboardXWriter",
    "TrainerBase",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "build_lr_scheduler",
    "build_model",
    "build_optimizer",
    "collect_env_info",
    "comm",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "get_bn_modules",
    "hooks",
    "inference_on_dataset",
    "print_csv_format",
    "seed_all_rng",
    "setup_logger",
    "verify_results",
]


class DefaultTrainer(TrainerBase):
    """A trainer built from a config: model, optimizer, loader, schedule, checkpoints, hooks.

    Override the ``build_*`` class methods, :meth:`build_hooks` and :meth:`build_writers` to change
    parts of it; for another kind of step replace ``_trainer``.

    ::

        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load(resume=False)  # MODEL.WEIGHTS, or the last checkpoint
        trainer.train()

    Attributes:
        scheduler, checkpointer, cfg: as their names say.
        model, optimizer, data_loader: of the inner trainer.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        logger = logging.getLogger("detectron2")
        if not logger.isEnabledFor(logging.INFO):  # the script did not set up logging
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())

        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = create_ddp_model(model, broadcast_buffers=False)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, data_loader, optimizer)

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    auto_scale_workers = staticmethod(auto_scale_workers)

    # --- running ------------------------------------------------------------------------------

    def resume_or_load(self, resume: bool = True) -> None:
        """Loads weights, and when resuming everything else.

        Args:
            resume: if OUTPUT_DIR has a last checkpoint, load model, optimizer, schedule and
                iteration from it and go on with the next iteration. Otherwise (and with False)
                load only the model, from MODEL.WEIGHTS.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1

    def train(self) -> OrderedDict | None:
        """Trains up to SOLVER.MAX_ITER.

        Returns:
            the last evaluation results if TEST.EXPECTED_RESULTS is set (they are verified), else
            None.
        """
        super().train(self.start_iter, self.max_iter)
        if len(self.cfg.TEST.EXPECTED_RESULTS) and comm.is_main_process():
            if not hasattr(self, "_last_eval_results"):
                raise AssertionError("TEST.EXPECTED_RESULTS is set, but nothing was evaluated")
            verify_results(self.cfg, self._last_eval_results)
            return self._last_eval_results
        return None

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def before_train(self) -> None:
        # The inner trainer takes the step, this one has the hooks that look at the gradients.
        outer = weakref.proxy(self)
        self._trainer.after_backward = lambda: outer.after_backward()
        super().before_train()

    def after_train(self) -> None:
        flush = getattr(self._trainer, "_flush_metrics", None)
        if flush is not None:
            flush()
        super().after_train()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    # --- parts to override --------------------------------------------------------------------

    def build_hooks(self) -> list[HookBase | None]:
        """Timing, schedule, precise BN, checkpoints, evaluation, writing: in this order."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # a second set of workers would double the memory
        precise_bn = cfg.TEST.PRECISE_BN
        parts = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            hooks.PreciseBN(
                # Its result is wanted at the evaluation.
                cfg.TEST.EVAL_PERIOD,
                self.model,
                self.build_train_loader(cfg),
                precise_bn.NUM_ITER,
            )
            if precise_bn.ENABLED and get_bn_modules(self.model)
            else None,
        ]
        # Before the evaluation: a failing evaluation must not cost the checkpoint.
        if comm.is_main_process():
            parts.append(
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            )

        def test_and_save_results() -> OrderedDict:
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        parts.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, test_and_save_results))
        if comm.is_main_process():
            # Last, so that it writes what the others have put into the storage.
            parts.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return parts

    def build_writers(self) -> list[EventWriter]:
        """What metrics are written with; called on the main process."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = build_model(cfg)
        logging.getLogger(__name__).info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable:
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        raise NotImplementedError(
            "To evaluate during training, override build_evaluator() of your trainer (or pass "
            "`evaluators=` to DefaultTrainer.test); or set DATASETS.TEST to ()"
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> OrderedDict:
        """Evaluates a model on DATASETS.TEST.

        Args:
            evaluators: one per data set; default: :meth:`build_evaluator`.

        Returns:
            task -> metrics; with several data sets, name -> task -> metrics.
        """
        logger = logging.getLogger(__name__)
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        names = cfg.DATASETS.TEST
        if evaluators is not None and len(evaluators) != len(names):
            raise AssertionError(
                f"{len(names)} data sets in DATASETS.TEST, {len(evaluators)} evaluators"
            )

        results: OrderedDict = OrderedDict()
        for i, name in enumerate(names):
            data_loader = cls.build_test_loader(cfg, name)
            if evaluators is not None:
                evaluator = evaluators[i]
            else:
                try:
                    evaluator = cls.build_evaluator(cfg, name)
                except NotImplementedError as error:
                    logger.warning("No evaluator for %s, which is not evaluated: %s", name, error)
                    results[name] = {}
                    continue
            results[name] = inference_on_dataset(model, data_loader, evaluator)
            if comm.is_main_process():
                if not isinstance(results[name], dict):
                    raise AssertionError(
                        f"Evaluator of {name} must return a dict on the main process, "
                        f"got {results[name]!r}"
                    )
                logger.info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results


def _inner(name: str) -> property:
    """An attribute that lives in the inner trainer."""

    def get(self: DefaultTrainer) -> Any:
        return getattr(self._trainer, name)

    def put(self: DefaultTrainer, value: Any) -> None:
        setattr(self._trainer, name, value)

    return property(get, put)


for _name in ("model", "data_loader", "optimizer"):
    setattr(DefaultTrainer, _name, _inner(_name))

__getattr__ = missing_getattr(__name__)
