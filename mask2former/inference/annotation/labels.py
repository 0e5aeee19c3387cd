"""The labels of a CVAT task and the classes of a model."""

import logging

from mask2former.engine.suggestions import nearest

from ..predictor import Predictor
from .proposals import TASKS, ProposalOptions, predictable_classes

logger = logging.getLogger("mask2former.annotation")


def declared_attributes(attributes: dict[str, list[str]], names: tuple[str, ...]) -> dict[str, str]:
    """Label -> its attribute with one of the names, as the task spells it."""
    found = {}
    for label, declared in attributes.items():
        for attribute in declared:
            if attribute.lower() in names:
                found.setdefault(label, attribute)
    return found


def check_labels(
    predictor: Predictor, options: ProposalOptions, attributes: dict[str, list[str]]
) -> None:
    """Warns of classes that are no labels of the task: CVAT refuses a file with an unknown label.

    Args:
        predictor: whose classes they are.
        options: the task, and classes that people named.
        attributes: label of the CVAT task -> names of its attributes.

    Raises:
        ValueError: a flag names a class that the model does not have.
    """
    task = options.task
    if task == "auto":
        switches = predictor.cfg.MODEL.MASK_FORMER.TEST
        task = next((t for t in TASKS if switches[f"{t.upper()}_ON"]), "semantic")
    names = predictable_classes(predictor.metadata, task)
    for flag, given in (
        ("--class-threshold", options.class_thresholds),
        ("--label-map", options.label_map),
    ):
        for name in given:
            if names and name not in names:
                raise ValueError(
                    f"{flag} {name}: the model has no such class{nearest(name, sorted(names))}"
                )
    unknown = sorted({options.label_map.get(n, n) for n in names} - attributes.keys())
    if attributes and unknown:
        logger.warning(
            "Classes that are no labels of the CVAT task: %s. CVAT will refuse the file if they "
            "are predicted: add them to the task, or rename them with --label-map CLASS=LABEL "
            "(labels: %s)",
            ", ".join(unknown[:10]) + (" ..." if len(unknown) > 10 else ""),
            ", ".join(attributes),
        )
