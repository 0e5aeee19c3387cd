"""ADE20K, 150 classes (ADEChallengeData2016): semantic, panoptic and instance annotations.

Outputs as of the scripts that Mask2Former publishes (datasets/prepare_ade20k_*_seg.py).
"""

import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..catalogs import load_table
from .ade20k_classes import instance_categories, instance_rows
from .command import Options
from .errors import PreparationError
from .files import (
    finished,
    image_size,
    is_complete,
    need,
    read_labels,
    save_image,
    save_json,
)
from .parallel import Journal, collect, work_through
from .segment_ids import SegmentIds, id_of
from .segments import Segment, describe_segments, encode_segments

SPLITS = {"training": "train", "validation": "val"}
_IGNORED = 255
_DOWNLOAD = (
    "Download ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu/ and unpack it "
    "into the folder of all data sets."
)
_INSTANCES = (
    "Download annotations_instance.tar (http://sceneparsing.csail.mit.edu/data/"
    "ChallengeData2017/annotations_instance.tar) and unpack it in ADEChallengeData2016."
)


def write_semantic(split: str, options: Options) -> None:
    """Shifts the label maps of a split so that classes are 0..149 and "other" is 255.

    Args:
        split: "training" or "validation".
        options: root, processes.

    Raises:
        MissingInput: the set is not there.
    """
    folder = options.root / "ADEChallengeData2016"
    source = need(folder / "annotations" / split, "the label maps of ADE20K", _DOWNLOAD)
    output = folder / "annotations_detectron2" / split
    done = set() if options.overwrite else finished(output)
    output.mkdir(parents=True, exist_ok=True)
    files = sorted(source.glob("*.png"))
    todo = [file for file in files if file.name not in done]
    for _ in work_through(partial(_shift, output), todo, options, f"semantic {split}"):
        pass
    options.say(f"{output}: {len(todo)} label maps written, {len(files) - len(todo)} were there.")


def _shift(output: Path, source: Path) -> None:
    labels = _labels(source, dimensions=2)
    # uint8 wraps around: 0 becomes 255.
    save_image(output / source.name, labels - np.uint8(1))


def write_panoptic(split: str, options: Options, seed: int = 0) -> None:
    """Makes ``ade20k_panoptic_<split>/*.png`` and ``.json``.

    Stuff of the semantic map comes first, then the instances over it; areas and boxes are those of
    the unclipped masks, as published.

    Args:
        split: "training" or "validation".
        options: root, processes.
        seed: of the segments' colours. The published script has none: its ids differ from run to
            run, ours do not, with any number of processes.

    Raises:
        MissingInput: the set or its instance annotations are not there.
        PreparationError: the annotations contradict each other (names the file).
    """
    folder = options.root / "ADEChallengeData2016"
    images = _images(folder, split)
    need(folder / "annotations" / split, "the label maps of ADE20K", _DOWNLOAD)
    need(folder / "annotations_instance" / split, "its instance annotations", _INSTANCES)
    output = folder / f"ade20k_panoptic_{SPLITS[split]}"
    summary = output.with_suffix(".json")
    done = finished(output)
    if not options.overwrite and done >= _pngs(images) and is_complete(summary, images):
        options.say(f"{summary}: there, with {len(images)} images; nothing to do.")
        return
    function = partial(_panoptic_image, folder, split, output, seed, instance_categories())
    annotations = collect(
        function,
        images,
        options,
        summary,
        settings={"seed": seed},
        is_there=lambda stem: f"{stem}.png" in done,
    )
    categories = [
        {key: row[key] for key in ("name", "id", "isthing", "color")}
        for row in load_table("ade20k_150")
    ]
    content = {
        "images": [entry["image"] for entry in annotations],
        "annotations": [entry["annotation"] for entry in annotations],
        "categories": categories,
    }
    save_json(summary, content)
    Journal.remove(summary)
    options.say(f"{summary}: {len(images)} images.")


def _panoptic_image(
    folder: Path, split: str, output: Path, seed: int, category_of: Mapping[int, int], image: Path
) -> tuple[str, dict[str, Any]]:
    stem = image.stem
    height, width = image_size(image)
    labels = _labels(folder / "annotations" / split / f"{stem}.png", dimensions=2)
    numbers, classes = _instances(folder / "annotations_instance" / split / f"{stem}.png")
    for array in (labels, numbers):
        if array.shape != (height, width):
            raise PreparationError(
                f"{image} is {width}x{height}, an annotation of it {array.shape[1]}x"
                f"{array.shape[0]}; unpack the download again"
            )
    rows = {row["id"]: row for row in load_table("ade20k_150")}
    # An image's colours depend on nothing but the seed and its name, so that neither order nor an
    # interruption matters.
    ids = SegmentIds(rows, np.random.RandomState((zlib.crc32(stem.encode()) + seed) % 2**32))
    segments = []

    def colour(segment: Segment, category: int) -> tuple[int, int, int]:
        chosen = ids.colour_of(category)
        segments.append(
            {
                "id": id_of(chosen),
                "category_id": category,
                "area": segment.area,
                "bbox": segment.bbox,
                "iscrowd": 0,
            }
        )
        return chosen

    # Colours by value of the map; what gets none stays black.
    stuff, things = np.zeros((2, 256, 3), np.uint8)
    semantic = labels - np.uint8(1)
    for segment in describe_segments(semantic):
        if segment.value != _IGNORED and not rows[segment.value]["isthing"]:
            stuff[segment.value] = colour(segment, segment.value)
    for segment in describe_segments(numbers):
        if segment.value:
            things[segment.value] = colour(segment, category_of[classes[segment.value]])
    colours = stuff[semantic]
    covered = numbers > 0
    colours[covered] = things[numbers[covered]]
    save_image(output / f"{stem}.png", colours)
    return stem, {
        "image": {"id": stem, "file_name": image.name, "width": width, "height": height},
        "annotation": {"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments},
    }


def write_instances(split: str, options: Options) -> None:
    """Makes ``ade20k_instance_<split>.json``, COCO's instance format with compressed run lengths.

    Args:
        split: "training" or "validation".
        options: root, processes.

    Raises:
        MissingInput: the images or the instance annotations are not there.
        PreparationError: an annotation is broken (names the file).
    """
    folder = options.root / "ADEChallengeData2016"
    images = _images(folder, split)
    need(folder / "annotations_instance" / split, "the instance annotations", _INSTANCES)
    summary = folder / f"ade20k_instance_{SPLITS[split]}.json"
    if not options.overwrite and is_complete(summary, images):
        options.say(f"{summary}: there, with {len(images)} images; nothing to do.")
        return
    category_of = instance_categories()
    function = partial(_instances_of_image, folder, split, category_of)
    results = collect(function, images, options, summary)
    annotations = [a for entry in results for a in entry["annotations"]]
    content = {
        "images": [entry["image"] for entry in results],
        "categories": instance_rows(category_of),
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
    }
    save_json(summary, content)
    Journal.remove(summary)
    options.say(f"{summary}: {len(images)} images, {len(annotations)} instances.")


def _instances_of_image(
    folder: Path, split: str, category_of: Mapping[int, int], image: Path
) -> tuple[str, dict[str, Any]]:
    stem = image.stem
    height, width = image_size(image)
    numbers, classes = _instances(folder / "annotations_instance" / split / f"{stem}.png")
    runs = encode_segments(numbers, classes)
    annotations = [
        {
            "image_id": stem,
            "iscrowd": 0,
            "category_id": category_of[classes[segment.value]],
            "bbox": segment.bbox,
            "segmentation": runs[segment.value],
            "area": segment.area,
        }
        for segment in describe_segments(numbers)
        if segment.value
    ]
    entry = {"id": stem, "file_name": image.name, "width": width, "height": height}
    return stem, {"image": entry, "annotations": annotations}


def _images(folder: Path, split: str) -> dict[str, Path]:
    source = need(folder / "images" / split, "the images of ADE20K", _DOWNLOAD)
    return {path.stem: path for path in sorted(source.glob("*.jpg"))}


def _labels(path: Path, dimensions: int) -> np.ndarray:
    labels = read_labels(path)
    if labels.dtype != np.uint8 or labels.ndim != dimensions:
        raise PreparationError(
            f"{path} is no {'grey' if dimensions == 2 else 'RGB'} image of 8 bits; it has "
            f"{labels.dtype} of shape {labels.shape}"
        )
    return labels


def _instances(path: Path) -> tuple[np.ndarray, dict[int, int]]:
    """Numbers of the instances [H, W] (0: none), and number -> class 1..100."""
    coded = _labels(path, dimensions=3)
    pairs = np.unique(coded[..., 1].astype(np.int32) * 256 + coded[..., 0])
    classes: dict[int, int] = {}
    for pair in pairs.tolist():
        number, value = divmod(pair, 256)
        if number == 0:
            continue
        if number in classes or not 1 <= value <= 100:
            raise PreparationError(
                f"{path}: instance {number} has the class {value}"
                + (f" and the class {classes[number]}" if number in classes else "")
                + "; unpack the download again"
            )
        classes[number] = value
    return coded[..., 1], classes


def _pngs(images: Mapping[str, Path]) -> set[str]:
    return {f"{stem}.png" for stem in images}
