"""One entry of ``DATASETS.CUSTOM``, checked."""

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mask2former.data.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class CustomDatasetError(DataError):
    """An entry of DATASETS.CUSTOM cannot be used; names entry, key or file, and remedy."""


@dataclass(frozen=True)
class Spec:
    """The keys of an entry, in lower case.

    Attributes:
        name: under which the set is registered.
        format: one of `FORMATS`.
        images: folder of the images.
        annotations: file or folder, see the format.
        masks: coco_panoptic: folder of the RGB-coded PNGs (default: ``annotations`` without
            ``.json``).
        sem_seg: coco_panoptic: folder of label maps; optional.
        classes: names in the order of contiguous ids; empty: read from the annotations. Classes of
            the file that are not listed are left out.
        colors: one RGB triple a class; semantic: also the code of colour-coded label images.
        split: yolo: which list of data.yaml; cvat: only this subset of a project.
        ignore_label: semantic: value without ground truth.
        part: "train" or "val": only this part of a set that has no split of its own; an image's
            part follows from its name and does not move when others are added.
        val_share: share of the images that is the part "val".
    """

    name: str
    format: str
    images: str = ""
    annotations: str = ""
    masks: str = ""
    sem_seg: str = ""
    classes: tuple[str, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    split: str = ""
    ignore_label: int = 255
    part: str = ""
    val_share: float = 0.1

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> "Spec":
        """Checks the keys of an entry.

        Raises:
            CustomDatasetError: an unknown key, a wrong type, or a missing FORMAT.
        """
        known = [f.name.upper() for f in fields(cls) if f.name != "name"]
        if not isinstance(entry, Mapping):
            raise CustomDatasetError(
                f"DATASETS.CUSTOM.{name} must be a block of the keys {', '.join(known)}; "
                f"it is {entry!r}"
            )
        for key in entry:
            if key not in known:
                raise CustomDatasetError(
                    f"DATASETS.CUSTOM.{name}: there is no key {key}{_nearest(key, known)}; "
                    f"keys are {', '.join(known)}"
                )
        values: dict[str, Any] = {key.lower(): entry[key] for key in entry}
        values["classes"] = _class_names(name, values.get("classes") or ())
        values["colors"] = tuple(tuple(int(v) for v in c) for c in values.get("colors") or ())
        if not values.get("format"):
            raise CustomDatasetError(f"DATASETS.CUSTOM.{name}: FORMAT is missing")
        spec = cls(name=name, **values)
        if spec.part not in ("", "train", "val"):
            raise spec.error("PART", f'is {spec.part}; it can be "train" or "val"')
        if spec.colors and spec.classes and len(spec.colors) != len(spec.classes):
            raise spec.error(
                "COLORS", f"has {len(spec.colors)} entries for {len(spec.classes)} CLASSES"
            )
        return spec

    def error(self, key: str, text: str) -> CustomDatasetError:
        """An error about one key of this entry."""
        return CustomDatasetError(f"DATASETS.CUSTOM.{self.name}.{key} {text}")

    def require(self, key: str, *, folder: bool) -> str:
        """The path that ``key`` names.

        Raises:
            CustomDatasetError: it is not set, or not an existing folder (or file).
        """
        path = os.path.expanduser(getattr(self, key.lower()))
        kind = "folder" if folder else "file"
        if not path:
            raise self.error(key, f"is missing: FORMAT {self.format} needs this {kind}")
        if not (os.path.isdir(path) if folder else os.path.isfile(path)):
            raise self.error(key, f"{path}: no such {kind} (looked for {os.path.abspath(path)})")
        return path

    def in_part(self, file_name: str) -> bool:
        """Whether an image belongs to ``part``."""
        if not self.part:
            return True
        return (self.part == "val") == is_validation(file_name, self.val_share)

    def with_colors(self, count: int) -> list[list[int]]:
        """One RGB colour a class: ``colors``, else detectron2's colour map."""
        if self.colors:
            return [list(c) for c in self.colors]
        from detectron2.utils.colormap import colormap

        table = colormap(rgb=True, maximum=255)
        return [[int(v) for v in table[i % len(table)]] for i in range(count)]


def is_validation(file_name: str, share: float) -> bool:
    """A split by names: the same image falls on the same side, whatever else is in the set.

    Args:
        file_name: only the last part of the path counts, so that a folder can be moved.
        share: of the images that are for validation, in [0, 1].
    """
    digest = hashlib.sha256(os.path.basename(file_name).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def _class_names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    names = tuple(str(v) for v in value)
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise CustomDatasetError(f"DATASETS.CUSTOM.{name}.CLASSES repeats {', '.join(repeated)}")
    return names


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key.upper(), known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
