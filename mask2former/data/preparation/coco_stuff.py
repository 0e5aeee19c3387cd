"""COCO-Stuff-10K v1.1: MATLAB label maps to PNG."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import scipy.io

from ..catalogs import load_table
from .command import Options
from .errors import PreparationError
from .files import finished, link_or_copy, need, save_image
from .parallel import work_through

SPLITS = ("train", "test")
_IGNORED = 255
_DOWNLOAD = (
    "Download cocostuff-10k-v1.1.zip (https://github.com/nightrome/cocostuff10k) and unpack it in "
    "coco/coco_stuff_10k, so that images/, annotations/ and imageLists/ lie there."
)


def write_stuff_10k(split: str, options: Options) -> None:
    """Makes ``images_detectron2/<split>`` (second names) and ``annotations_detectron2/<split>``.

    Labels are positions in the list of 171 classes (0..170), 255 where nothing is labelled.

    Args:
        split: "train" or "test".
        options: root, processes.

    Raises:
        MissingInput: the set is not there.
        PreparationError: an annotation is broken (names the file).
    """
    folder = options.root / "coco" / "coco_stuff_10k"
    listed = need(folder / "imageLists" / f"{split}.txt", "a list of COCO-Stuff-10K", _DOWNLOAD)
    for part in ("images", "annotations"):
        need(folder / part, f"the {part} of COCO-Stuff-10K", _DOWNLOAD)
    stems = listed.read_text().split()
    images = folder / "images_detectron2" / split
    annotations = folder / "annotations_detectron2" / split
    linked, done = finished(images), finished(annotations)
    todo = [
        stem
        for stem in stems
        if options.overwrite or f"{stem}.png" not in done or f"{stem}.jpg" not in linked
    ]
    work = partial(_convert, folder, images, annotations)
    for _ in work_through(work, todo, options, f"stuff-10k {split}"):
        pass
    options.say(
        f"{annotations}: {len(todo)} label maps written, {len(stems) - len(todo)} were there."
    )


def _convert(folder: Path, images: Path, annotations: Path, stem: str) -> None:
    image = need(folder / "images" / f"{stem}.jpg", "an image of imageLists", _DOWNLOAD)
    source = need(folder / "annotations" / f"{stem}.mat", "its label map", _DOWNLOAD)
    try:
        classes = scipy.io.loadmat(source, variable_names=["S"])["S"]
    except (KeyError, ValueError, NotImplementedError, OSError, TypeError) as error:
        raise PreparationError(f"{source} has no label map S ({error})") from error
    table = _labels()
    if classes.ndim != 2 or classes.min() < 0 or classes.max() >= len(table):
        raise PreparationError(f"{source}: S is no label map of 0..{len(table) - 1}")
    save_image(annotations / f"{stem}.png", table[classes])
    link_or_copy(image, images / f"{stem}.jpg")


@cache
def _labels() -> np.ndarray:
    """uint8 table: class 0..182 of the file -> label; 0 is unlabelled."""
    rows = load_table("coco_stuff_10k")
    table = np.full(max(row["id"] for row in rows) + 1, _IGNORED, np.uint8)
    for label, row in enumerate(rows):
        table[row["id"]] = label
    return table
