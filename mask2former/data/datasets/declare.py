"""The one way sets are registered here: a name, its paths, its classes.

Registering a name again replaces it, so a notebook can move a set to another folder. Sets that
detectron2 itself registers (COCO instances, Cityscapes, ...) are left to it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_sem_seg

from .folders import require_dataset_files
from .records import load_panoptic_records, number_categories

Rows = Iterable[Mapping[str, Any]]


def panoptic_classes(rows: Rows, *, things_as: str = "things", stuff_ids: str = "all") -> dict:
    """Class metadata of a panoptic set from its table.

    The contiguous id of a class is its row number, for things and stuff alike.

    Args:
        rows: table rows with id, name, isthing and color.
        things_as: ``thing_classes`` and ``thing_colors`` list the ``"things"`` or ``"all"`` rows.
        stuff_ids: ``stuff_dataset_id_to_contiguous_id`` covers ``"all"`` rows or only ``"stuff"``.
            ``stuff_classes`` always lists all.
    """
    rows = list(rows)
    named = [r for r in rows if r["isthing"] or things_as == "all"]
    return {
        "thing_classes": [r["name"] for r in named],
        "thing_colors": [r["color"] for r in named],
        "stuff_classes": [r["name"] for r in rows],
        "stuff_colors": [r["color"] for r in rows],
        "thing_dataset_id_to_contiguous_id": {
            r["id"]: i for i, r in enumerate(rows) if r["isthing"]
        },
        "stuff_dataset_id_to_contiguous_id": {
            r["id"]: i for i, r in enumerate(rows) if stuff_ids == "all" or not r["isthing"]
        },
    }


def instance_classes(rows: Rows) -> dict:
    """Class metadata of an instance set: contiguous ids number the given rows."""
    rows = list(rows)
    return {
        "thing_classes": [r["name"] for r in rows],
        "thing_dataset_id_to_contiguous_id": {r["id"]: i for i, r in enumerate(rows)},
        **({"thing_colors": [r["color"] for r in rows]} if "color" in rows[0] else {}),
    }


def register_panoptic(
    name: str,
    classes: Mapping[str, Any],
    *,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None,
    sem_seg_root: str | None = None,
    evaluator_type: str = "coco_panoptic_seg",
    ignore_label: int = 255,
    image_id: Callable[[Any], Any] = int,
) -> None:
    """Registers a set in COCO's panoptic format, with or without semantic label maps."""

    def load() -> list[dict[str, Any]]:
        require_dataset_files(name)
        return load_panoptic_records(
            panoptic_json,
            image_root,
            panoptic_root,
            thing_ids=classes["thing_dataset_id_to_contiguous_id"],
            stuff_ids=classes["stuff_dataset_id_to_contiguous_id"],
            sem_seg_root=sem_seg_root,
            image_id=image_id,
        )

    register(
        name,
        load,
        **({} if sem_seg_root is None else {"sem_seg_root": sem_seg_root}),
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        json_file=instances_json,
        evaluator_type=evaluator_type,
        ignore_label=ignore_label,
        label_divisor=1000,
        **classes,
    )


def register_instances(
    name: str,
    classes: Mapping[str, Any],
    *,
    image_root: str,
    json_file: str,
    evaluator_type: str = "coco",
) -> None:
    """Registers a set in COCO's instance format; annotation ids stay in the records."""

    def load() -> list[dict[str, Any]]:
        require_dataset_files(name)
        # Without a name detectron2 keeps the file's category ids: they are mapped here, by the
        # declared classes, with neither a warning about gaps nor a numbering of its own.
        records = load_coco_json(json_file, image_root, extra_annotation_keys=["id"])
        number_categories(records, classes["thing_dataset_id_to_contiguous_id"], json_file)
        return records

    register(
        name,
        load,
        json_file=json_file,
        image_root=image_root,
        evaluator_type=evaluator_type,
        **classes,
    )


def register_semantic(
    name: str,
    classes: Mapping[str, Any],
    *,
    image_root: str,
    sem_seg_root: str,
    gt_ext: str = "png",
    ignore_label: int = 255,
) -> None:
    """Registers a set of two folders: ``.jpg`` images and label maps of the same stems."""

    def load() -> list[dict[str, Any]]:
        require_dataset_files(name)
        return load_sem_seg(sem_seg_root, image_root, gt_ext=gt_ext, image_ext="jpg")

    register(
        name,
        load,
        image_root=image_root,
        sem_seg_root=sem_seg_root,
        evaluator_type="sem_seg",
        ignore_label=ignore_label,
        **classes,
    )


def replace_metadata(name: str, **values: Any) -> None:
    """Sets metadata that may be there with another value, which ``Metadata`` itself refuses."""
    metadata = MetadataCatalog.get(name)
    for key, value in values.items():
        if hasattr(metadata, key):
            delattr(metadata, key)
        setattr(metadata, key, value)


def register(name: str, load: Callable[[], list[dict[str, Any]]], **metadata: Any) -> None:
    """Registers a loader and its metadata; an earlier registration of the name is replaced."""
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
