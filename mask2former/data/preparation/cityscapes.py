"""Cityscapes: label maps of train ids and panoptic files, as cityscapesscripts makes them.

createTrainIdLabelImgs and createPanopticImgs of cityscapesscripts do the same, in one process and
from the start each time. Files are equal byte for byte (tests compare them).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import id2label, labels
from cityscapesscripts.preparation.json2labelImg import createLabelImage

from .command import Options
from .errors import MissingInput, PreparationError
from .files import finished, is_complete, read_labels, save_image, save_json, write_atomically
from .parallel import Journal, collect, work_through
from .segments import describe_segments

SPLITS = ("train", "val", "test")
_DOWNLOAD = (
    "Register at https://www.cityscapes-dataset.com/, download leftImg8bit_trainvaltest.zip and "
    "gtFine_trainvaltest.zip and unpack both into cityscapes in the folder of all data sets."
)


def write_label_maps(split: str, options: Options) -> None:
    """Makes ``*_gtFine_labelTrainIds.png`` beside the polygons of a split.

    Args:
        split: "train", "val" or "test".
        options: root, processes.

    Raises:
        MissingInput: there are no polygons.
        PreparationError: a file of polygons is broken (names it).
    """
    files = _annotations(split, options, "_polygons.json")
    for city in {file.parent for file in files}:
        finished(city)
    todo = [f for f in files if options.overwrite or not _label_map(f).exists()]
    for _ in work_through(_draw_train_ids, todo, options, f"label maps {split}"):
        pass
    options.say(
        f"gtFine/{split}: {len(todo)} label maps written, {len(files) - len(todo)} were there."
    )


def _label_map(polygons: Path) -> Path:
    return polygons.with_name(polygons.name.replace("_polygons.json", "_labelTrainIds.png"))


def _draw_train_ids(polygons: Path) -> None:
    annotation = Annotation()
    try:
        annotation.fromJsonFile(str(polygons))
        image = createLabelImage(annotation, "trainIds")
    # cityscapesscripts ends the process where a label is unknown.
    except (SystemExit, ValueError, KeyError, TypeError) as error:
        raise PreparationError(f"{polygons} cannot be drawn ({error!r})") from error
    write_atomically(_label_map(polygons), lambda scratch: image.save(scratch, format="PNG"))


def write_panoptic(split: str, options: Options) -> None:
    """Makes ``gtFine/cityscapes_panoptic_<split>/*.png`` and ``.json`` out of ``instanceIds``.

    Ids of categories are label ids; a segment has the label id, or 1000 times it plus a number for
    things that are told apart. Groups of things ("cargroup") are crowds.

    Args:
        split: "train", "val" or "test".
        options: root, processes.

    Raises:
        MissingInput: there are no instance maps.
        PreparationError: one of them is broken (names it).
    """
    items = {
        file.name.replace("_gtFine_instanceIds.png", ""): file
        for file in _annotations(split, options, "_instanceIds.png")
    }
    output = options.root / "cityscapes" / "gtFine" / f"cityscapes_panoptic_{split}"
    summary = output.with_suffix(".json")
    done = finished(output)
    pngs = {f"{key}_gtFine_panoptic.png" for key in items}
    if not options.overwrite and done >= pngs and is_complete(summary, items):
        options.say(f"{summary}: there, with {len(items)} images; nothing to do.")
        return
    results = collect(
        partial(_panoptic_image, output),
        items,
        options,
        summary,
        is_there=lambda key: f"{key}_gtFine_panoptic.png" in done,
    )
    content = {
        "images": [entry["image"] for entry in results],
        "annotations": [entry["annotation"] for entry in results],
        "categories": [
            {
                "id": label.id,
                "name": label.name,
                "color": label.color,
                "supercategory": label.category,
                "isthing": int(label.hasInstances),
            }
            for label in labels
            if not label.ignoreInEval
        ],
    }
    save_json(summary, content, sort_keys=True, indent=4)
    Journal.remove(summary)
    options.say(f"{summary}: {len(items)} images.")


def _panoptic_image(output: Path, file: Path) -> tuple[str, dict[str, Any]]:
    key = file.name.replace("_gtFine_instanceIds.png", "")
    instances = read_labels(file)
    if instances.ndim != 2 or instances.min() < 0 or instances.max() >= 65536:
        raise PreparationError(f"{file} is no map of instance ids")
    instances = instances.astype(np.int32)
    colours = np.zeros((int(instances.max()) + 1, 3), np.uint8)
    segments = []
    for segment in describe_segments(instances):
        value = segment.value
        label = id2label.get(value if value < 1000 else value // 1000)
        if label is None:
            raise PreparationError(f"{file}: the id {value} belongs to no label of Cityscapes")
        if label.ignoreInEval:
            continue
        colours[value] = (value % 256, value // 256, 0)
        segments.append(
            {
                "id": value,
                "category_id": label.id,
                "area": segment.area,
                "bbox": segment.bbox,
                "iscrowd": int(value < 1000 and label.hasInstances),
            }
        )
    height, width = instances.shape
    name = f"{key}_gtFine_panoptic.png"
    save_image(output / name, colours[instances])
    return key, {
        "image": {
            "id": key,
            "width": width,
            "height": height,
            "file_name": f"{key}_gtFine_leftImg8bit.png",
        },
        "annotation": {"image_id": key, "file_name": name, "segments_info": segments},
    }


def _annotations(split: str, options: Options, suffix: str) -> list[Path]:
    folder = options.root / "cityscapes" / "gtFine" / split
    files = sorted(folder.glob(f"*/*{suffix}"))
    if not files:
        raise MissingInput(f"{folder.absolute()} has no <city>/*{suffix}", _DOWNLOAD)
    return files
