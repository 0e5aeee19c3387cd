"""What shows only over all images of a data set: its splits, and how classes are balanced."""

import numpy as np

from .findings import Findings, Severity
from .survey_data import SplitSurvey, Survey


def check_whole(result: Survey, task: str) -> None:
    """Adds to ``result.findings``; ``task`` as in `Candidate`."""
    findings = result.findings
    train = result.splits.get("train")
    if train is None:
        return
    held_out = [role for role in ("val", "test") if role in result.splits]
    if not held_out:
        findings.add(
            "no-validation",
            Severity.INFO,
            "there are no images for validation",
            "set some aside in a file of their own: the config evaluates on the training images"
            if task == "panoptic"
            else "the config holds out a tenth by name (PART, VAL_SHARE)",
        )
    for role in held_out:
        other = result.splits[role]
        for content in train.contents.keys() & other.contents.keys():
            findings.add(
                "leakage",
                Severity.ERROR,
                f"pictures are in train and in {role}: results there mean nothing",
                f"remove them from one of the two, best whole scenes from {role}",
                f"{train.contents[content]} = {other.contents[content]}",
            )
        if other.classes != train.classes:
            findings.add(
                "other-classes",
                Severity.ERROR,
                f"train and {role} have different classes",
                "give both the same categories, in the same order of ids",
                f"{train.classes} / {other.classes}",
            )
    if not sum(train.objects):
        findings.add(
            "nothing-to-learn",
            Severity.ERROR,
            "no image of train has an object with a mask",
            "label some: polygons or masks; boxes, points and lines cannot train segmentation",
        )
    _check_balance(train, findings)


def _check_balance(train: SplitSurvey, findings: Findings) -> None:
    counts = {name: train.per_class[i] for i, name in enumerate(train.classes)}
    for name, count in counts.items():
        if count == 0:
            findings.add(
                "unused-class",
                Severity.WARNING,
                "classes without an object in train",
                "label some, or leave them out with CLASSES",
                name,
            )
        elif count < 20:
            findings.add(
                "rare-class",
                Severity.WARNING,
                "classes with fewer than 20 objects in train",
                "label more of them first: they will hardly be found",
                f"{name}: {count}",
            )
    used = [n for n in counts.values() if n]
    if len(used) > 1 and max(used) > 20 * min(used):
        most, least = (f(counts, key=counts.get) for f in (max, min))
        findings.add(
            "imbalance",
            Severity.WARNING,
            f"the most frequent class has {max(used) / min(used):.0f} times the objects of the "
            "rarest",
            "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler shows images with rare classes "
            "more often",
            f"{most}: {counts[most]}, {least}: {counts[least] or min(used)}",
        )
    if train.sizes and len(train.records) < 50:
        findings.add(
            "few-images",
            Severity.WARNING,
            f"only {len(train.records)} images to train on",
            "start from COCO weights, and expect to label more",
        )
    if train.sizes:
        sides = np.array([min(size) for size in train.sizes])
        if sides.max() > 4 * sides.min():
            findings.add(
                "mixed-sizes",
                Severity.INFO,
                f"images of very different sizes (short sides {sides.min()} to {sides.max()})",
                "nothing to do; objects of the largest images may become small",
            )
