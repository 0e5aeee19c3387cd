"""Training and evaluation of models: trainer, optimizer, checkpoints, checks, launching."""

from .checkpoint import Checkpointer
from .errors import ConfigError, TrainingDiverged, UserError, WeightsError
from .launching import run
from .optimizer import build_optimizer
from .setup import load_config, setup
from .trainer import Trainer

__all__ = [
    "Checkpointer",
    "ConfigError",
    "Trainer",
    "TrainingDiverged",
    "UserError",
    "WeightsError",
    "build_optimizer",
    "load_config",
    "run",
    "setup",
]
