"""Which files and folders a registered set consists of, which of them exist, what makes them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..datasets.folders import remedy, required_paths

# Metadata keys that name something only a part of the work needs -> what for.
_OPTIONAL = {"json_file": "instance AP of a panoptic set", "gt_dir": "Cityscapes evaluation"}
_ANNOTATION_KEYS = ("json_file", "panoptic_json")
_FURTHER_KEYS = ("images_per_cat_json", "json_per_img_dir", "dirname")


@dataclass(frozen=True)
class Expected:
    """One file or folder of a set.

    Attributes:
        key: its metadata key.
        path: as registered.
        exists: whether it is there.
        required: reading the set fails without it; else ``purpose`` says what does.
        purpose: of what is not required.
    """

    key: str
    path: str
    exists: bool
    required: bool = True
    purpose: str = ""


def expected_files(name: str) -> list[Expected]:
    """What set ``name`` needs, then what it can use."""
    metadata = MetadataCatalog.get(name)
    paths = required_paths(name)
    for key in _FURTHER_KEYS:
        if metadata.get(key):
            paths[key] = metadata.get(key)
    out = [Expected(key, path, PathManager.exists(path)) for key, path in paths.items()]
    for key, purpose in _OPTIONAL.items():
        path = metadata.get(key)
        if path and key not in paths:
            out.append(Expected(key, path, PathManager.exists(path), False, purpose))
    return out


def how_to_get(name: str) -> str:
    """One sentence: what makes or brings the files of the set."""
    return remedy(name)


def json_fault(name: str) -> str:
    """What is wrong with the set's annotation files as such; "" where they are JSON of the kind."""
    for entry in expected_files(name):
        if not entry.path.endswith(".json") or not entry.exists:
            continue
        try:
            content = json.loads(Path(entry.path).read_text(encoding="utf-8"))
        except ValueError as error:  # JSON or encoding
            return f"{entry.path} is not valid JSON, perhaps cut off in a copy: {error}"
        wanted = ("images", "annotations") if entry.key in _ANNOTATION_KEYS else ()
        absent = [k for k in wanted if not isinstance(content, dict) or k not in content]
        if absent:
            return f"{entry.path} has no {' and no '.join(map(repr, absent))}"
    return ""


def near_miss(path: str, limit: int = 12) -> str:
    """How far a missing path exists, and what lies there instead: a typo shows at once."""
    here = Path(os.path.abspath(path))
    missing = here.name
    while not here.exists():
        missing, here = here.name, here.parent
    if not here.is_dir():
        return f"{here} is a file"
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in here.iterdir())
    listed = ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")
    return f"{here} has no {missing}; it has: {listed or 'nothing'}"


def count_files(path: str) -> dict[str, int]:
    """Files below a folder by suffix, e.g. ``{".jpg": 5000}``; a file counts as itself."""
    place = Path(path)
    if place.is_file():
        return {place.suffix: 1}
    counts: dict[str, int] = {}
    for _, _, names in os.walk(place):
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            counts[suffix] = counts.get(suffix, 0) + 1
    return counts
