"""Which format is this? From a path to entries of DATASETS.CUSTOM."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from mask2former.data.cvat import CvatError, iterate_images, read_labels
from mask2former.data.datasets.custom.spec import IMAGE_SUFFIXES

_TRAIN = ("train", "training")
_VAL = ("val", "valid", "validation")
_TEST = ("test", "testing")


class UnknownFormat(ValueError):
    """Nothing that can be trained on was found; the message says what was looked for."""


@dataclass
class Candidate:
    """Sets of one format found at a path.

    Attributes:
        format: a format of DATASETS.CUSTOM.
        task: "instance", "panoptic" or "semantic".
        entries: role ("train", "val", "test") -> entry of DATASETS.CUSTOM.
        notes: what was decided on the way, in sentences.
    """

    format: str
    task: str
    entries: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def detect(path: str | Path, *, classes: list[str] | None = None) -> Candidate:
    """Finds out what lies at a path.

    Args:
        path: an annotation file (COCO json, CVAT xml, YOLO data.yaml) or a folder that holds one,
            or folders of images and label images.
        classes: names of the classes of label images, which do not say them.

    Raises:
        UnknownFormat: nothing was recognised.
        FileNotFoundError: the path does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file():
        return _of_file(path)
    for finder in (_yolo_folder, _cvat_folder, _coco_folder):
        found = finder(path)
        if found:
            return found
    found = _semantic_folder(path, classes)
    if found:
        return found
    images = [p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES]
    raise UnknownFormat(
        f"{path}: no annotations recognised"
        + (f" beside {len(images)} images" if images else "")
        + ". Looked for: data.yaml (YOLO), annotations.xml (CVAT for images 1.1), *.json in COCO's "
        "instance or panoptic format, and folders images/ with labels/, masks/ or annotations/ of "
        "label PNGs"
    )


def _of_file(path: Path) -> Candidate:
    suffix = path.suffix.lower()
    if suffix == ".json":
        found = _coco_files([path])
        if found:
            return found
        raise UnknownFormat(f'{path}: no COCO file: it needs "images", "annotations", "categories"')
    if suffix == ".xml":
        return _cvat(path)
    if suffix in (".yaml", ".yml"):
        return _yolo(path)
    if suffix == ".zip":
        raise UnknownFormat(f"{path} is an archive: unpack it and give the folder")
    raise UnknownFormat(f"{path}: {suffix or 'a file without suffix'} is no annotation format")


# --- YOLO


def _yolo_folder(path: Path) -> Candidate | None:
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (path / name).is_file():
            return _yolo(path / name)
    return None


def _yolo(path: Path) -> Candidate:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or not data.get("names"):
        raise UnknownFormat(f'{path} has no "names": not a YOLO data.yaml')
    entries = {}
    for role, names in (("train", _TRAIN), ("val", _VAL), ("test", _TEST)):
        split = next((n for n in names if data.get(n)), None)
        if split:
            entries[role] = {"FORMAT": "yolo", "ANNOTATIONS": str(path), "SPLIT": split}
    if not entries:
        raise UnknownFormat(f"{path} lists no images (train, val)")
    return Candidate("yolo", "instance", entries)


# --- CVAT


def _cvat_folder(path: Path) -> Candidate | None:
    file = path / "annotations.xml"
    return _cvat(file) if file.is_file() else None


def _cvat(path: Path) -> Candidate:
    try:
        labels = read_labels(str(path))
        subsets = {image.subset for image in iterate_images(str(path))}
    except CvatError as error:
        raise UnknownFormat(str(error)) from error
    base: dict[str, Any] = {"FORMAT": "cvat", "ANNOTATIONS": str(path)}
    if labels:
        base["CLASSES"] = labels
    roles = {role: s for s in subsets for role in ("train", "val", "test") if _is(s, role)}
    if {"train", "val"} <= roles.keys():
        return Candidate("cvat", "instance", {r: {**base, "SPLIT": s} for r, s in roles.items()})
    return Candidate("cvat", "instance", {"train": base})


def _is(name: str, role: str) -> bool:
    names = {"train": _TRAIN, "val": _VAL, "test": _TEST}[role]
    words = name.lower().replace("-", "_").replace(".", "_").split("_")
    return any(word.rstrip("0123456789") in names for word in words)


# --- COCO


def _coco_folder(path: Path) -> Candidate | None:
    files = [*sorted(path.glob("*.json")), *sorted(path.glob("*/*.json"))]
    return _coco_files(files) if files else None


def _coco_files(files: list[Path]) -> Candidate | None:
    kinds = {file: _coco_kind(file) for file in files}
    for kind, task in (("coco_panoptic", "panoptic"), ("coco_instance", "instance")):
        chosen = [file for file, k in kinds.items() if k == kind]
        if not chosen:
            continue
        notes, entries = [], {}
        others = [f for f, k in kinds.items() if k and k != kind]
        if others:
            notes.append(f"{kind} was chosen; {', '.join(map(str, others))} left aside")
        for file in chosen:
            role = next((r for r in ("val", "test", "train") if _is(file.stem, r)), "train")
            if role in entries:
                notes.append(f"{file} left aside: there is another file for {role}")
                continue
            entries[role] = _coco_entry(file, kind, role)
        if "train" not in entries:
            entries["train"] = entries.pop(next(iter(entries)))
        return Candidate(kind, task, entries, notes)
    return None


def _coco_kind(file: Path) -> str | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return None
    annotations = content["annotations"]
    if annotations and "segments_info" in annotations[0]:
        return "coco_panoptic"
    return "coco_instance" if "categories" in content else None


def _coco_entry(file: Path, kind: str, role: str) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    names = [image.get("file_name", "") for image in content["images"][:20]]
    entry: dict[str, Any] = {"FORMAT": kind, "ANNOTATIONS": str(file)}
    entry["IMAGES"] = str(_image_folder(file, names, role))
    rows = content.get("categories", [])
    if all({"id", "name"} <= row.keys() for row in rows):  # if not, reading it says what is wrong
        entry["CLASSES"] = [row["name"] for row in sorted(rows, key=lambda row: row["id"])]
    if kind == "coco_panoptic":
        masks = [file.with_suffix(""), file.parent.parent / file.stem]
        entry["MASKS"] = str(next((m for m in masks if m.is_dir()), masks[0]))
    return entry


def _image_folder(file: Path, names: list[str], role: str) -> Path:
    """The folder below the set in which most of the named images are."""
    root = file.parent.parent if file.parent.name.startswith("annotation") else file.parent
    folders = [root, *sorted(p for p in root.rglob("*") if p.is_dir())]
    scored = [(sum((f / n).is_file() for n in names), _is(f.name, role), f) for f in folders]
    return max(scored, key=lambda row: row[:2])[2] if names else root


# --- folders of label images


def _semantic_folder(path: Path, classes: list[str] | None) -> Candidate | None:
    pairs = []
    for images in ("images", "imgs", "leftImg8bit", "img"):
        for labels in ("labels", "masks", "annotations", "gt", "annotations_detectron2"):
            if (path / images).is_dir() and (path / labels).is_dir():
                pairs.append((path / images, path / labels))
    for images, labels in pairs:
        files = [p for p in sorted(labels.rglob("*")) if p.suffix.lower() in (".png", ".tif")]
        if not files:
            continue
        notes, names = [], list(classes or [])
        if not names:
            count = _largest_label(files) + 1
            names = [f"class_{i}" for i in range(count)]
            notes.append(
                f"label images do not name their classes; found ids up to {count - 1}: give the "
                "names with --classes"
            )
        base = {"FORMAT": "semantic", "CLASSES": names}
        entries = {}
        for role, splits in (("train", _TRAIN), ("val", _VAL)):
            split = next((s for s in splits if (images / s).is_dir()), None)
            if split:
                places = {"IMAGES": str(images / split), "ANNOTATIONS": str(labels / split)}
                entries[role] = {**base, **places}
        if "train" not in entries:
            entries = {"train": {**base, "IMAGES": str(images), "ANNOTATIONS": str(labels)}}
        return Candidate("semantic", "semantic", entries, notes)
    return None


def _largest_label(files: list[Path]) -> int:
    largest = 0
    for file in files[:: max(1, len(files) // 50)]:
        with Image.open(file) as image:
            if image.mode not in ("L", "P", "I", "I;16", "1"):
                continue
            labels = np.asarray(image)
        labels = labels[(labels != 255) & (labels != 65535)]
        largest = max(largest, int(labels.max(initial=0)))
    return largest
