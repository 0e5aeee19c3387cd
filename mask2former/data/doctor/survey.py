"""Goes through all images and annotations of a candidate once."""

import logging
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.dataset_mappers.reading import is_deep
from mask2former.data.datasets.custom import CustomDatasetError, Spec
from mask2former.data.datasets.custom.registration import FORMATS

from .annotations import RecordCounts, check_instances, check_panoptic, check_semantic
from .coco_file import check_coco_file
from .detect import Candidate
from .findings import Findings, Severity
from .images import ImageFacts, look_at

logger = logging.getLogger(__name__)


@dataclass
class SplitSurvey:
    """One role of a candidate: its records and what was counted."""

    records: list[dict[str, Any]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    per_class: Counter = field(default_factory=Counter)
    objects: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height as shown
    contents: dict[str, str] = field(default_factory=dict)  # content hash -> file


@dataclass
class Survey:
    """What was found: per role, and the findings over all."""

    splits: dict[str, SplitSurvey] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)

    @property
    def classes(self) -> list[str]:
        """Class names of the training split."""
        return self.splits["train"].classes

    @property
    def most_objects(self) -> int:
        """The most objects in one image."""
        return max((n for s in self.splits.values() for n in s.objects), default=0)


def survey(candidate: Candidate, *, progress: bool = True) -> Survey:
    """Reads every image and annotation.

    Args:
        candidate: of `detect`.
        progress: show a bar.

    Returns:
        the survey; problems of single images are findings, not errors.
    """
    result = Survey()
    for role, entry in candidate.entries.items():
        split = SplitSurvey()
        name = f"doctor_{role}"
        try:
            spec = Spec.of(name, CfgNode(entry))
            FORMATS[spec.format](spec)
            split.records = DatasetCatalog.get(name)
        except (CustomDatasetError, ValueError, KeyError, OSError, AssertionError) as error:
            if not check_coco_file(entry, result.findings):
                result.findings.add(
                    "cannot-be-read",
                    Severity.ERROR,
                    f"the {role} annotations cannot be read",
                    "mend what the example says",
                    str(error).replace(f"DATASETS.CUSTOM.{name}.", ""),
                )
            continue
        metadata = MetadataCatalog.get(name)
        key = "thing_classes" if candidate.task == "instance" else "stuff_classes"
        split.classes = list(metadata.get(key))
        result.splits[role] = split
        check = _record_check(candidate, spec, split, result.findings)
        _survey_split(role, split, check, result.findings, progress)
    _check_whole(result, candidate.task)
    return result


RecordCheck = Callable[[dict[str, Any], ImageFacts], RecordCounts]


def _record_check(
    candidate: Candidate, spec: Spec, split: SplitSurvey, findings: Findings
) -> RecordCheck:
    if candidate.task == "instance":
        return lambda record, facts: check_instances(record, facts.shown_size, findings)
    if candidate.task == "panoptic":
        return lambda record, facts: check_panoptic(record, findings)
    classes, ignore = len(split.classes), spec.ignore_label
    return lambda record, facts: check_semantic(record, facts.shown_size, classes, ignore, findings)


def _survey_split(
    role: str, split: SplitSurvey, check: RecordCheck, findings: Findings, progress: bool
) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        facts = pool.map(look_at, [record["file_name"] for record in split.records])
        bar = tqdm(
            zip(split.records, facts),
            total=len(split.records),
            desc=role,
            unit="image",
            disable=not progress,
        )
        for record, image in bar:
            if image.problem:
                _add_broken(record["file_name"], image, findings)
                continue
            _check_image(record, image, findings)
            split.sizes.append(image.shown_size)
            _check_repeated(role, record["file_name"], image, split, findings)
            counts = check(record, image)
            split.objects.append(counts.objects)
            split.per_class += counts.classes
            if not counts.objects:
                findings.add(
                    "no-annotation",
                    Severity.INFO,
                    "images without an object",
                    "fine if they show nothing; otherwise label them. Training leaves them out "
                    "unless DATALOADER.FILTER_EMPTY_ANNOTATIONS is False",
                    record["file_name"],
                )


def _add_broken(file_name: str, image: ImageFacts, findings: Findings) -> None:
    if image.missing:
        findings.add(
            "missing-image",
            Severity.ERROR,
            "annotated images that are not there",
            "copy them to the folder of images, or remove them from the annotations",
            file_name,
        )
    else:
        findings.add(
            "corrupt-image",
            Severity.ERROR,
            "images that cannot be decoded",
            "save them again or remove them (training replaces them and counts)",
            f"{file_name}: {image.problem}",
        )


def _check_image(record: dict[str, Any], image: ImageFacts, findings: Findings) -> None:
    name = record["file_name"]
    declared = (record.get("width"), record.get("height"))
    if declared[0] and declared != image.shown_size:
        if declared == image.size:
            findings.add(
                "exif-rotation",
                Severity.ERROR,
                "images are shown turned (EXIF), but their annotations are for the stored pixels",
                "save the images without the EXIF orientation, e.g. mogrify -strip",
                name,
            )
        else:
            findings.add(
                "image-size",
                Severity.ERROR,
                "images of another size than the annotations say",
                "annotate the images as they are, or scale the annotations",
                f"{name}: {image.shown_size}, annotated {declared}",
            )
    elif image.turned:
        findings.add(
            "exif-turned",
            Severity.INFO,
            "images are turned by EXIF, and annotated as they are shown",
            "nothing to do here; other tools may not turn them",
            name,
        )
    if is_deep(image.mode):
        findings.add(
            "deep-image",
            Severity.WARNING,
            "grey images of more than 8 bits; values above 255 are cut off to white",
            "convert them to 8 bits with one scaling of your choice, those to predict on too",
            f"{name}: {image.mode}",
        )
    elif image.mode in ("RGBA", "LA", "CMYK", "YCCK", "PA"):
        findings.add(
            "odd-channels",
            Severity.INFO,
            "images with transparency or in print colours are converted to RGB",
            "look at the drawn samples: are the colours right?",
            f"{name}: {image.mode}",
        )
    elif image.mode in ("L", "1"):
        findings.add(
            "grey-image",
            Severity.INFO,
            "grey images are repeated in three channels",
            "nothing to do, unless only some of the images are grey by mistake",
            name,
        )


def _check_repeated(
    role: str, file_name: str, image: ImageFacts, split: SplitSurvey, findings: Findings
) -> None:
    first = split.contents.setdefault(image.content, file_name)
    if first != file_name:
        findings.add(
            "repeated-image",
            Severity.WARNING,
            f"the same picture more than once in {role}",
            "remove the copies",
            f"{file_name} = {first}",
        )


def _check_whole(result: Survey, task: str) -> None:
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
