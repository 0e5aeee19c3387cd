"""Runs train_net.py with one config on prepared tiny data, in a process that serves many."""

import argparse
import importlib.util
import json
import logging
import math
import os
import shutil
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .downloads import REPO
from .expected_metrics import expected_metrics
from .shrinking import as_options, shrinking, timm_options


@dataclass
class Outcome:
    """What became of one config.

    Attributes:
        config: path relative to the repository.
        datasets: those of DATASETS.TRAIN and TEST.
        task: by the test set's evaluator.
        loss: total loss of the training step.
        metrics: reported metrics, name -> value, classes' own left out.
        missing: expected metrics that were not reported.
        evaluated: tasks that ``--eval-only`` reported, where it was run.
        error: last line of what went wrong; "" where nothing did.
        where: "config", "train" or "evaluate", with an error.
    """

    config: str
    datasets: tuple[str, ...] = ()
    task: str = ""
    loss: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    evaluated: list[str] = field(default_factory=list)
    error: str = ""
    where: str = ""
    seconds: float = 0.0

    @property
    def proved(self) -> bool:
        """Trained a step with a finite loss and reported every metric."""
        return not self.error and not self.missing and math.isfinite(self.loss)

    @property
    def reason(self) -> str:
        """Why it is not proved."""
        if self.error:
            return f"{self.where}: {self.error}"
        if self.missing:
            return f"not reported: {', '.join(self.missing)}"
        return "" if math.isfinite(self.loss) else f"the loss is {self.loss}"


def prove(
    config: str, output: Path, *, eval_only: bool = False, overrides: dict[str, Any] | None = None
) -> Outcome:
    """Trains a step and evaluates as ``train_net.py --config-file CONFIG`` does.

    ``$DETECTRON2_DATASETS`` must have been set before mask2former was imported.

    Args:
        config: relative to the repository.
        output: OUTPUT_DIR; removed afterwards.
        eval_only: also runs ``--eval-only`` with the saved weights, and requires equal results.
        overrides: further config keys.
    """
    import torch

    torch.set_num_threads(1)
    out = Outcome(config)
    start = time.perf_counter()
    out.where = "config"
    try:
        _prove(out, output, eval_only, overrides or {})
        out.where = ""
    except SystemExit as error:
        out.error = f"exit status {error.code}"
    except Exception as error:  # noqa: BLE001 - the table's purpose is to tell
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error).strip().splitlines() or [""]
        out.error = (
            f"{type(error).__name__}: {text[0]} ({Path(place.filename).name}:{place.lineno})"
        )
        (output.parent / f"{output.name}.traceback").write_text(traceback.format_exc())
    finally:
        _close_logs(output)
        shutil.rmtree(output, ignore_errors=True)
    out.seconds = time.perf_counter() - start
    return out


def _prove(out: Outcome, output: Path, eval_only: bool, overrides: dict[str, Any]) -> None:
    from detectron2.data import MetadataCatalog
    from mask2former.data.inspection import describe
    from mask2former.engine.setup import load_config

    path = str(REPO / out.config)
    cfg = load_config(path, as_options(overrides))
    out.datasets = tuple(dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)))
    test_set = cfg.DATASETS.TEST[0]
    out.task = describe(test_set).task
    if additions := timm_options(cfg):
        path = str(output.with_suffix(".yaml"))
        Path(path).write_text(yaml.safe_dump({"_BASE_": str(REPO / out.config), **additions}))
    given = shrinking(cfg) | {"OUTPUT_DIR": str(output)} | overrides
    wanted = expected_metrics(
        MetadataCatalog.get(test_set).evaluator_type, cfg.MODEL.MASK_FORMER.TEST
    )
    out.where = "train"
    _train_net().main(_arguments(path, given))
    lines = [json.loads(x) for x in (output / "metrics.json").read_text().splitlines()]
    reported = {k: v for line in lines for k, v in line.items()}
    out.loss = reported.get("total_loss", math.nan)
    tasks = ("panoptic_seg/", "sem_seg/", "segm/", "bbox/")
    out.metrics = {
        k: v for k, v in reported.items() if k.startswith(tasks) and "-" not in k.split("/")[1]
    }
    out.missing = [m for m in wanted if m not in out.metrics]
    if eval_only:
        out.where = "evaluate"
        given["MODEL.WEIGHTS"] = str(output / "model_final.pth")
        results = _train_net().main(_arguments(path, given, eval_only=True))
        out.evaluated = list(results)
        _same(out.metrics, results)


def _same(metrics: dict[str, float], results: dict[str, dict[str, float]]) -> None:
    """Raises AssertionError unless ``--eval-only`` gave what training ended with."""
    again = {f"{task}/{k}": v for task, values in results.items() for k, v in values.items()}
    for key, value in metrics.items():
        other = float(again.get(key, math.inf))
        if not (math.isnan(value) and math.isnan(other)) and abs(value - other) > 1e-6:
            raise AssertionError(f"{key} is {value} after training, {other} with --eval-only")


def _train_net() -> Any:
    spec = importlib.util.spec_from_file_location("train_net", REPO / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _arguments(
    path: str, overrides: dict[str, Any], *, eval_only: bool = False
) -> argparse.Namespace:
    return argparse.Namespace(
        config_file=path,
        opts=as_options(overrides),
        eval_only=eval_only,
        resume=False,
        num_gpus=0,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
    )


def _close_logs(output: Path) -> None:
    """Takes the handlers of one run off the loggers; the process goes on to other runs."""
    for logger in (logging.getLogger(n) for n in ("", "detectron2", "fvcore", "mask2former")):
        for handler in list(logger.handlers):
            name = getattr(handler, "baseFilename", "") or ""
            if name.startswith(os.path.abspath(output)):
                logger.removeHandler(handler)
                handler.close()
