"""The 100 classes of ADE20K's instances among the 150 of scene parsing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..catalogs import load_table
from .errors import PreparationError
from .files import read_json

# Where Mask2Former ships them, relative to the working directory.
CATEGORIES_FILE = Path("datasets/ade20k_instance_imgCatIds.json")
MAPPING_FILE = Path("datasets/ade20k_instance_catid_mapping.txt")


def instance_categories() -> dict[int, int]:
    """Instance class 1..100 -> scene-parsing class 0..149.

    A mapping file at the place where Mask2Former ships it is used; else the class table, which
    says the same.

    Raises:
        PreparationError: the file is no such mapping.
    """
    rows = load_table("ade20k_instance")
    if not MAPPING_FILE.exists():
        return {i: row["id"] for i, row in enumerate(rows, start=1)}
    mapping = {}
    # One line of heading; some classes have several lines, one for each class of the full set.
    for line in MAPPING_FILE.read_text().splitlines()[1:]:
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not all(f.isdigit() for f in fields):
            raise PreparationError(
                f'{MAPPING_FILE.absolute()}: "{line}" is not three numbers; remove the file to '
                "use the built-in mapping"
            )
        mapping[int(fields[0])] = int(fields[1]) - 1
    if sorted(mapping) != list(range(1, len(rows) + 1)):
        raise PreparationError(
            f"{MAPPING_FILE.absolute()} does not map the classes 1..{len(rows)}; remove the file "
            "to use the built-in mapping"
        )
    return mapping


def instance_rows(category_of: Mapping[int, int]) -> list[dict[str, Any]]:
    """``categories`` of the instance file, with names from the published file where it lies."""
    if not CATEGORIES_FILE.exists():
        return [{"id": row["id"], "name": row["name"]} for row in load_table("ade20k_instance")]
    try:
        rows = read_json(CATEGORIES_FILE)["categories"]
        return [{**row, "id": category_of[row["id"]]} for row in rows]
    except (KeyError, TypeError) as error:
        raise PreparationError(
            f"{CATEGORIES_FILE.absolute()} has no categories 1..100 ({error!r}); remove the file "
            "to use the built-in names"
        ) from error
