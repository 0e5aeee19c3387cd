"""Says everything that is wrong in a COCO file at once; training stops at the first mistake."""

import json
from typing import Any

from mask2former.data.datasets.custom.coco_file import coco_problems

from .findings import Findings, Severity

_KINDS = {
    "missing-key": (
        "entries of the file lack a key",
        "write the file again with a tool that fills it in",
    ),
    "repeated-id": (
        "ids occur more than once",
        "number them anew; files that were merged need that",
    ),
    "unknown-category": (
        "annotations of a category that the file does not list",
        "add it to categories, or remove them; ids are numbers, not texts",
    ),
    "broken-mask": (
        "masks that cannot be read",
        "draw them again, or remove them from the file",
    ),
}


def check_coco_file(entry: dict[str, Any], findings: Findings) -> int:
    """Adds what makes an instances file unusable.

    Args:
        entry: of DATASETS.CUSTOM; other formats have no findings here.

    Returns:
        how many problems were found.
    """
    if entry.get("FORMAT") != "coco_instance":
        return 0
    try:
        with open(entry["ANNOTATIONS"], encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return 0  # the error of reading it says more
    found = 0
    for problem in coco_problems(content):
        message, remedy = _KINDS[problem.kind]
        findings.add(
            problem.kind, Severity.ERROR, message, remedy, problem.text, count=problem.count
        )
        found += 1
    return found
