"""Goes through all images and annotations of a candidate once."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.datasets.custom import CustomDatasetError, Spec
from mask2former.data.datasets.custom.registration import FORMATS

from .annotations import RecordCounts, check_instances, check_panoptic, check_semantic
from .coco_file import check_coco_file
from .detect import Candidate
from .findings import Findings, Severity
from .image_findings import add_broken, check_image, check_repeated
from .images import ImageFacts, look_at
from .survey_data import SplitSurvey, Survey
from .whole_set import check_whole

logger = logging.getLogger(__name__)


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
    check_whole(result, candidate.task)
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
                add_broken(record["file_name"], image, findings)
                continue
            check_image(record, image, findings)
            split.sizes.append(image.shown_size)
            check_repeated(role, record["file_name"], image, split, findings)
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
