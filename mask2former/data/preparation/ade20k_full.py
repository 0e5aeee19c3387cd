"""ADE20K with all classes (ADE20K_2021_17_01): label maps of the 847 classes that are trained.

Layout and classes as of MaskFormer (Cheng et al., NeurIPS 2021), which has no published script for
this release in Mask2Former's repository.
"""

import pickle
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..catalogs import load_table
from .command import Options
from .errors import MissingInput, PreparationError
from .files import finished, link_or_copy, need, read_labels, save_image
from .parallel import work_through

SPLITS = ("training", "validation")
_IGNORED = 65535
_DOWNLOAD = (
    "Register at https://groups.csail.mit.edu/vision/datasets/ADE20K/, download "
    "ADE20K_2021_17_01.zip and unpack it into the folder of all data sets."
)


def write_full_semantic(split: str, options: Options) -> None:
    """Makes ``images_detectron2/<split>`` (second names) and ``annotations_detectron2/<split>``.

    Annotations are 16-bit TIFFs, deflated, with train ids 0..846 and 65535 where nothing of the 847
    classes is labelled.

    Args:
        split: "training" or "validation".
        options: root, processes.

    Raises:
        MissingInput: the set is not there.
        PreparationError: the index or a picture is unreadable (names it).
    """
    folder = options.root / "ADE20K_2021_17_01"
    index = need(folder / "index_ade20k.pkl", "the index of the full ADE20K", _DOWNLOAD)
    files = [f for f in _listed_images(index) if split in PurePosixPath(f).parts]
    if not files:
        raise MissingInput(f"{index} lists no image of {split}", _DOWNLOAD)
    images = folder / "images_detectron2" / split
    annotations = folder / "annotations_detectron2" / split
    linked, done = finished(images), finished(annotations)
    todo = [
        file
        for file in files
        if options.overwrite
        or f"{_stem(file)}.tif" not in done
        or PurePosixPath(file).name not in linked
    ]
    work = partial(_convert, options.root, images, annotations)
    for _ in work_through(work, todo, options, f"full {split}"):
        pass
    options.say(
        f"{annotations}: {len(todo)} label maps written, {len(files) - len(todo)} were there."
    )


def _convert(root: Path, images: Path, annotations: Path, file: str) -> None:
    source = need(root / file, "an image that the index lists", _DOWNLOAD)
    coded = read_labels(source.with_name(f"{source.stem}_seg.png"))
    if coded.ndim != 3 or coded.dtype != np.uint8:
        raise PreparationError(f"{source.stem}_seg.png beside {source} is no RGB image of 8 bits")
    # Class of the object in red and green; blue only tells objects apart.
    classes = coded[..., 0] // 10 * np.uint16(256) + coded[..., 1]
    save_image(
        annotations / f"{source.stem}.tif", _train_ids()[classes], compression="tiff_adobe_deflate"
    )
    link_or_copy(source, images / source.name)


@cache
def _train_ids() -> np.ndarray:
    """uint16 table: number of the class in the full set -> train id."""
    table = np.full(26 * 256, _IGNORED, np.uint16)
    for row in load_table("ade20k_full"):
        table[row["id"]] = row["trainId"]
    return table


def _stem(file: str) -> str:
    return PurePosixPath(file).stem


def _listed_images(index: Path) -> list[str]:
    """Paths of the images relative to the root of the data sets."""
    try:
        with open(index, "rb") as f:
            content = _PlainUnpickler(f).load()
        return [f"{d}/{name}" for d, name in zip(content["folder"], content["filename"])]
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise PreparationError(f"{index} is no index of ADE20K ({error}). {_DOWNLOAD}") from error


class _PlainUnpickler(pickle.Unpickler):
    """Numpy arrays and plain values: a pickle from the network must not run code."""

    _ALLOWED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module}.{name}")
        return super().find_class(module, name)
