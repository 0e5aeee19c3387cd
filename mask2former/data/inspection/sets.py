"""What is registered: task, evaluator, classes and where the files should be."""

import os
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from .expected import expected_files

# (part of the evaluator type or of the name, task); the first that fits.
_TASKS = (
    ("keypoints", "keypoints"),
    ("ytvis", "video"),
    ("panoptic", "panoptic"),
    ("sem_seg", "semantic"),
    ("pascal_voc", "detection"),
    ("instance", "instance"),
    ("coco", "instance"),
    ("lvis", "instance"),
)


@dataclass(frozen=True)
class SetInfo:
    """One registered data set.

    Attributes:
        task: panoptic, instance, semantic, keypoints, detection or video.
        classes: number of classes; None where only the annotation file knows.
        root: deepest folder that contains all its files.
        state: "found", "partly" or "missing".
    """

    name: str
    task: str
    evaluator_type: str
    classes: int | None
    root: str
    state: str


def registered_sets() -> list[str]:
    """All registered names, sorted."""
    return sorted(DatasetCatalog.list())


def describe(name: str) -> SetInfo:
    """Describes a registered set without reading it.

    Raises:
        KeyError: the name is not registered.
    """
    if name not in DatasetCatalog.list():
        raise KeyError(f"{name} is not a registered data set")
    metadata = MetadataCatalog.get(name)
    files = [e for e in expected_files(name) if e.required]
    found = sum(e.exists for e in files)
    paths = [os.path.abspath(e.path) for e in files]
    folder = os.path.commonpath(paths) if paths else ""
    return SetInfo(
        name=name,
        task=task_of(name, metadata),
        evaluator_type=metadata.get("evaluator_type", "") or "",
        classes=len(id_names(name).all) or None,
        root=folder if len(paths) > 1 else os.path.dirname(folder),
        state="found" if files and found == len(files) else "partly" if found else "missing",
    )


def task_of(name: str, metadata: Metadata) -> str:
    """The task a set is made for, by its evaluator; "" where that says nothing."""
    text = f"{metadata.get('evaluator_type', '') or ''}"
    if name.startswith("keypoints"):
        return "keypoints"
    return next((task for part, task in _TASKS if part in text), "")


@dataclass(frozen=True)
class IdNames:
    """What contiguous ids mean; a list is empty where only the annotation file knows.

    Attributes:
        things: of annotations, and of segments that are things.
        stuff: of label maps, and of other segments.
    """

    things: list[str]
    stuff: list[str]

    @property
    def all(self) -> list[str]:
        """Every name once, in order."""
        return list(dict.fromkeys(self.things + self.stuff))


def id_names(name: str) -> IdNames:
    """Names by contiguous id of a registered set.

    Most panoptic sets number things and stuff together and name them all in ``stuff_classes``
    (``thing_classes`` of ADE20K has only the things, which thing ids must not index).
    """
    metadata = MetadataCatalog.get(name)
    things = list(metadata.get("thing_classes") or [])
    stuff = list(metadata.get("stuff_classes") or [])
    task = task_of(name, metadata)
    if task == "semantic":
        return IdNames([], stuff)
    if task != "panoptic":
        return IdNames(things, [])
    thing_ids = set((metadata.get("thing_dataset_id_to_contiguous_id") or {}).values())
    stuff_ids = set((metadata.get("stuff_dataset_id_to_contiguous_id") or {}).values())
    together = bool(stuff_ids) and len(stuff) == len(thing_ids | stuff_ids)
    return IdNames(stuff if together else things, stuff)
