"""Class tables, kept as JSON beside the code."""

import json
from pathlib import Path
from typing import Any


def load_json(name: str) -> Any:
    """Content of ``<name>.json`` in this folder."""
    return json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))


def load_table(name: str) -> list[dict[str, Any]]:
    """Rows of a table ``{"columns": [...], "rows": [[...], ...]}`` as dicts."""
    table = load_json(name)
    return [dict(zip(table["columns"], row)) for row in table["rows"]]
