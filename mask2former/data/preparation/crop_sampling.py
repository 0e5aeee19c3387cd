"""The index that crop sampling draws from: images of each category, segments of each image.

Source: "Intra-Batch Supervision for Panoptic Segmentation on High-Resolution Images", de Geus and
Dubbelman, WACV 2023, and its code. Files are as published; images are found by their exact names,
where the published scripts search for the image id anywhere in a path.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .command import Options
from .errors import MissingInput, PreparationError
from .files import finished, need, read_json, save_json

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class SamplingSource:
    """A set in COCO's panoptic format and where its files lie.

    Attributes:
        panoptic_json: the annotation file.
        image_of: annotation -> path of the image.
        panoptic_of: annotation -> path of the PNG of segment ids.
        sem_seg_of: annotation -> path of the label map; None: the set has none.
    """

    panoptic_json: Path
    image_of: Callable[[Mapping[str, Any]], str]
    panoptic_of: Callable[[Mapping[str, Any]], str]
    sem_seg_of: Callable[[Mapping[str, Any]], str] | None


def write_index(
    source: SamplingSource,
    images_per_class: Path,
    per_image: Path,
    options: Options,
    remedy: str,
) -> None:
    """Writes ``images_per_class`` and ``per_image/<image id>.json``.

    A crowd segment does not make its image count for the category. Records keep the dataset's
    category ids, and paths as ``source`` gives them.

    Args:
        source: what to read.
        images_per_class: file with ``cat_ids``, in the order in which they are first seen, and
            ``imgs_per_cat``: category id (as text) -> image ids.
        per_image: folder of records with file_name, image_id, sem_seg_file_name,
            pan_seg_file_name and segments_info.
        options: shows a bar. All is written anew each time: paths may have changed.
        remedy: for what is missing.

    Raises:
        MissingInput: a file of the set does not exist (names the first, counts the others).
        PreparationError: the annotation file is not in COCO's panoptic format, or without segments.
    """
    need(source.panoptic_json, "the panoptic annotations", remedy)
    records = _records(source)
    _require_files(records, remedy)
    images: dict[int, list[Any]] = {}
    for record in records:
        present = (s["category_id"] for s in record["segments_info"] if not s.get("iscrowd", 0))
        for category in dict.fromkeys(present):
            images.setdefault(category, []).append(record["image_id"])
    if not images:
        raise PreparationError(
            f"{source.panoptic_json} has no segment to show: none of its {len(records)} "
            "annotations has a segment that is no crowd"
        )
    finished(per_image)
    bar = tqdm(records, desc=per_image.name, unit="img", disable=not options.progress)
    for record in bar:
        save_json(per_image / f"{record['image_id']}.json", record)
    # Last: with it the index is complete.
    save_json(images_per_class, {"cat_ids": list(images), "imgs_per_cat": images})
    options.say(
        f"{images_per_class}: {len(images)} categories; {per_image}: {len(records)} images."
    )


def _records(source: SamplingSource) -> list[dict[str, Any]]:
    records = []
    with _panoptic_format(source.panoptic_json):
        for annotation in read_json(source.panoptic_json)["annotations"]:
            record = {"file_name": source.image_of(annotation), "image_id": annotation["image_id"]}
            if source.sem_seg_of is not None:
                record["sem_seg_file_name"] = source.sem_seg_of(annotation)
            record["pan_seg_file_name"] = source.panoptic_of(annotation)
            record["segments_info"] = annotation["segments_info"]
            for segment in record["segments_info"]:
                segment["category_id"], segment["bbox"]
            records.append(record)
    return records


@contextmanager
def _panoptic_format(path: Path) -> Iterator[None]:
    """What fails inside for want of a key or for its type is said of the annotation file."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise PreparationError(f"{path} is not in COCO's panoptic format ({error!r})") from error


def _require_files(records: list[dict[str, Any]], remedy: str) -> None:
    for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name"):
        paths = [record[key] for record in records if key in record]
        listed = {folder: set(_list(folder)) for folder in {os.path.dirname(p) for p in paths}}
        missing = [p for p in paths if os.path.basename(p) not in listed[os.path.dirname(p)]]
        if missing:
            first = os.path.abspath(missing[0])
            others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise MissingInput(f"{first}{others} is missing", remedy)


def _list(folder: str) -> Iterable[str]:
    return os.listdir(folder) if os.path.isdir(folder) else ()


def cityscapes_source(root: Path, split: str) -> SamplingSource:
    """Cityscapes fine annotations: images in folders of cities, label maps beside the polygons."""
    images = os.path.join(root, "cityscapes", "leftImg8bit", split)
    labels = os.path.join(root, "cityscapes", "gtFine", split)
    panoptic = os.path.join(root, "cityscapes", "gtFine", f"cityscapes_panoptic_{split}")

    def in_city(folder: str, annotation: Mapping[str, Any], ending: str) -> str:
        image_id = annotation["image_id"]
        return os.path.join(folder, image_id.split("_")[0], f"{image_id}_{ending}.png")

    return SamplingSource(
        panoptic_json=Path(panoptic + ".json"),
        image_of=lambda a: in_city(images, a, "leftImg8bit"),
        panoptic_of=lambda a: os.path.join(panoptic, a["file_name"]),
        sem_seg_of=lambda a: in_city(labels, a, "gtFine_labelTrainIds"),
    )


def folder_source(
    panoptic_json: str, panoptic_root: str, image_root: str, sem_seg_root: str | None
) -> SamplingSource:
    """A set of flat folders, as COCO, ADE20K and Mapillary Vistas have.

    An image has the name that ``images`` of the annotation file gives it; where there is no such
    file, the stem of its panoptic PNG.
    """
    by_stem: dict[str, str] = {}
    for name in sorted(_list(image_root)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES:
            by_stem.setdefault(stem, name)
    path = Path(panoptic_json)
    names: dict[Any, str] = {}
    if path.exists():  # if not, write_index says so
        with _panoptic_format(path):
            listed = read_json(path).get("images", [])
            names = {image["id"]: image["file_name"] for image in listed if "file_name" in image}

    def stem_of(annotation: Mapping[str, Any]) -> str:
        return os.path.splitext(annotation["file_name"])[0]

    def image_of(annotation: Mapping[str, Any]) -> str:
        name = names.get(annotation["image_id"])
        if name is None or not os.path.exists(os.path.join(image_root, name)):
            stem = stem_of(annotation)
            name = by_stem.get(stem, name or stem + ".jpg")
        return os.path.join(image_root, name)

    return SamplingSource(
        panoptic_json=path,
        image_of=image_of,
        panoptic_of=lambda a: os.path.join(panoptic_root, a["file_name"]),
        sem_seg_of=None
        if sem_seg_root is None
        else lambda a: os.path.join(sem_seg_root, stem_of(a) + ".png"),
    )
