"""Class tables as data: one JSON file per label set, read once and shared.

A table is ``{"columns": [...], "rows": [[...], ...]}``; row order is the order of contiguous ids.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


@cache
def load_table(name: str) -> list[dict[str, Any]]:
    """Reads ``<name>.json`` of this folder as one dict per row.

    Args:
        name: file stem, e.g. ``"coco_panoptic"``.

    Returns:
        the rows in file order; treat them as read-only, they are cached.

    Raises:
        FileNotFoundError: there is no such table; the message lists those there are.
    """
    path = _FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.json")))
        raise FileNotFoundError(f"No class table {path}; there are: {known}")
    table = json.loads(path.read_text(encoding="utf-8"))
    return [dict(zip(table["columns"], row)) for row in table["rows"]]
