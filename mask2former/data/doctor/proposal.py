"""A config to start with: derived from the data, every choice with its reason."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detectron2.config import CfgNode, get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from mask2former.config import add_maskformer2_config
from mask2former.data.datasets.custom.spec import is_validation

from .detect import Candidate
from .survey import Survey

_REPO = Path(__file__).resolve().parents[3]
# Published configs that the proposals stand on.
_BASES = {
    "instance": "configs/coco/instance-segmentation/maskformer2_R50_bs16_50ep.yaml",
    "panoptic": "configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml",
    "semantic": "configs/ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml",
}
_MAPPERS = {"instance": "coco_instance_lsj", "panoptic": "coco_panoptic_lsj"}
# Where the published schedules lower the learning rate, as shares of the whole.
_STEPS = (0.889, 0.963)


@dataclass
class TrainingPlan:
    """The config as nested values, and why each was chosen (key -> sentence)."""

    config: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """YAML with the reasons as a head of comments."""
        head = "".join(f"# {key}: {why}\n" for key, why in self.reasons.items())
        return head + yaml.dump(
            self.config, Dumper=_Plain, sort_keys=False, default_flow_style=None
        )


class _Plain(yaml.SafeDumper):
    """Writes lists that occur twice twice: people edit the file."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def plan_training(
    candidate: Candidate,
    found: Survey,
    *,
    output: Path,
    name: str,
    batch_size: int = 4,
    epochs: int = 50,
    weights: str | None = None,
    base: str | None = None,
) -> TrainingPlan:
    """Chooses classes, queries, image size, schedule and evaluation period.

    Args:
        candidate, found: of `detect` and `survey`.
        output: where the config will be; its ``_BASE_`` is relative to it.
        name: prefix of the sets' names.
        batch_size: images a step over all processes.
        epochs: passes over the training images.
        weights: MODEL.WEIGHTS; None leaves the base's.
        base: another config to stand on.

    Raises:
        OSError, KeyError, ValueError: the base cannot be read.
    """
    reasons: dict[str, str] = {}
    train = found.splits["train"]
    count = len(train.records)
    files = [record["file_name"] for record in train.records]
    sets, roles = _sets(candidate, name, files)
    if sets[f"{name}_train"].get("PART"):
        share = sets[f"{name}_train"]["VAL_SHARE"]
        count = sum(not is_validation(file, share) for file in files)
        reasons["DATASETS"] = (
            f"{len(files) - count} of {len(files)} images, chosen by name, are for validation"
        )

    iterations = max(500, round(epochs * count / batch_size))
    reasons["SOLVER.MAX_ITER"] = (
        f"{epochs} passes over {count} images in batches of {batch_size}"
        + ("" if iterations > 500 else "; at least 500 steps")
    )
    path = base or str(_REPO / _BASES[candidate.task])
    base_cfg = _load(path)
    base_rate, base_batch = base_cfg.SOLVER.BASE_LR, base_cfg.SOLVER.IMS_PER_BATCH
    learning_rate = base_rate * batch_size / base_batch
    reasons["SOLVER.BASE_LR"] = f"{base_rate:g} for {base_batch} images a step, in proportion"
    period = max(50, iterations // 10)
    usual = base_cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    queries = _queries(found.most_objects, usual)
    reasons["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"] = (
        f"at most {found.most_objects} objects in an image; "
        + (f"{usual} as in the base" if queries == usual else "half as many more")
    )
    config = {
        "_BASE_": os.path.relpath(path, output.parent),
        "MODEL": {
            **({} if weights is None else {"WEIGHTS": weights}),
            "SEM_SEG_HEAD": {"NUM_CLASSES": len(found.classes)},
            "MASK_FORMER": {"NUM_OBJECT_QUERIES": queries, "TEST": _tasks(candidate)},
        },
        "DATASETS": {"CUSTOM": sets, **{k: f'("{v}",)' for k, v in roles.items()}},
        "SOLVER": {
            "IMS_PER_BATCH": batch_size,
            "BASE_LR": float(f"{learning_rate:.3g}"),
            "MAX_ITER": iterations,
            "STEPS": str(tuple(round(iterations * share) for share in _STEPS)),
            "CHECKPOINT_PERIOD": period,
        },
        "TEST": {"EVAL_PERIOD": period},
        "DATALOADER": {"NUM_WORKERS": min(4, os.cpu_count() or 1)},
        "INPUT": _input(candidate.task, train.sizes, reasons),
        "OUTPUT_DIR": f"output/{name}",
    }
    return TrainingPlan(config, reasons)


def _sets(
    candidate: Candidate, name: str, files: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    entries = {role: dict(e) for role, e in candidate.entries.items() if role != "test"}
    if "val" not in entries and candidate.task != "panoptic" and len(files) > 1:
        whole = {**entries["train"], "VAL_SHARE": _val_share(files)}
        entries = {part: {**whole, "PART": part} for part in ("train", "val")}
    sets = {f"{name}_{role}": entry for role, entry in entries.items()}
    test = f"{name}_val" if "val" in entries else f"{name}_train"
    return sets, {"TRAIN": f"{name}_train", "TEST": test}


def _val_share(files: list[str]) -> float:
    """A tenth, or as much more as it takes for an image to fall on that side."""
    for percent in range(10, 100):
        if any(is_validation(file, percent / 100) for file in files):
            return percent / 100
    return 0.5


def _tasks(candidate: Candidate) -> dict[str, bool]:
    """The task of the data, and no other."""
    return {f"{t.upper()}_ON": t == candidate.task for t in ("semantic", "instance", "panoptic")}


def _queries(most_objects: int, usual: int) -> int:
    """As in the base; half more than the most objects, in steps of 50, where that is more."""
    needed = round(1.5 * most_objects)
    return usual if needed <= usual else -(-needed // 50) * 50


def _load(path: str) -> CfgNode:
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(path)
    return cfg


def _input(task: str, sizes: list[tuple[int, int]], reasons: dict[str, str]) -> dict[str, Any]:
    short = int(np.median([min(s) for s in sizes])) if sizes else 640
    long = int(np.median([max(s) for s in sizes])) if sizes else 640
    # A multiple of 32 (the network's largest stride); the published sizes are the upper limits.
    test_short = min(800, max(128, round(short / 32) * 32))
    test_long = max(1333, 2 * test_short) if test_short == 800 else 2 * test_short
    tests = {"MIN_SIZE_TEST": test_short, "MAX_SIZE_TEST": test_long}
    reasons["INPUT"] = f"the images are {long}x{short} (median, long by short side)"
    if task == "semantic":
        crop = min(512, max(128, round(short / 32) * 32))
        scales = [round(crop * s / 10) for s in range(5, 21)]
        return {
            "MIN_SIZE_TRAIN": str(tuple(scales)),
            "CROP": {"ENABLED": True, "SIZE": f"({crop}, {crop})"},
            "SIZE_DIVISIBILITY": crop,
            **tests,
        }
    side = min(1024, max(128, -(-long // 32) * 32))
    return {
        "DATASET_MAPPER_NAME": _MAPPERS[task],
        "IMAGE_SIZE": side,
        "MIN_SCALE": 0.5,
        "MAX_SCALE": 1.5,
        **tests,
    }
