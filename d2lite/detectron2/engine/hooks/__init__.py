"""Hooks: what happens around the iterations of a training."""

from fvcore.common.checkpoint import Checkpointer
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.common.timer import Timer
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats

from detectron2._missing import missing_getattr
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.solver import LRMultiplier
from detectron2.utils.events import EventStorage, EventWriter
from detectron2.utils.file_io import PathManager

from ..base_trainer import HookBase
from .checkpointing import BestCheckpointer, PeriodicCheckpointer
from .evaluation import EvalHook
from .lr_scheduler import LRScheduler
from .precise_bn import PreciseBN
from .profiling import AutogradProfiler, CallbackHook, TorchMemoryStats, TorchProfiler
from .timing import IterationTimer, PeriodicWriter

__all__ = [
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "Checkpointer",
    "EvalHook",
    "EventStorage",
    "EventWriter",
    "HookBase",
    "IterationTimer",
    "LRMultiplier",
    "LRScheduler",
    "ParamScheduler",
    "PathManager",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "Timer",
    "TorchMemoryStats",
    "TorchProfiler",
    "flatten_results_dict",
    "get_bn_modules",
    "update_bn_stats",
]

__getattr__ = missing_getattr(__name__)
