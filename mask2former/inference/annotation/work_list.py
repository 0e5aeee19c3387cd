"""The images of a task: names, files, where their results go, and in which batches they run."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from detectron2.data.detection_utils import read_image
from mask2former.data.cvat.document import read_image as read_element
from mask2former.data.cvat.document import split_document
from mask2former.data.cvat.reading import CvatError, CvatImage
from mask2former.data.dataset_mappers.reading import DECODE_FAILURES, depth_warning
from mask2former.data.datasets.custom.cvat import find_image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkItem:
    """One image element that has a file.

    Attributes:
        number: position of the element in the annotation file.
        name: as the annotation file has it.
        key: unique among the items; equal to ``name`` unless a name is repeated.
        file: the image.
        height, width: as the annotation file says.
        annotated: whether the element has shapes already.
        picture: differs when the file was replaced, or the annotation file says another size.
    """

    number: int
    name: str
    key: str
    file: Path
    height: int
    width: int
    annotated: bool
    picture: str = ""


class ImageProblem(Exception):
    """One image cannot be used; the message says which and why."""


def read_work_list(annotations: Path, images: Path) -> tuple[list[WorkItem], list[str], int]:
    """Reads which images are to be done.

    Returns:
        the items in the order of the file; names without a file (or with an unsafe name); and the
        number of image elements. An element without a name has none of the files; one without a
        size is an item that `load_image` refuses.

    Raises:
        CvatError: the file cannot be used.
    """
    elements = list(_elements(annotations))
    repeated = {name for name, n in Counter(e.name for e in elements).items() if n > 1}
    items, missing = [], []
    for number, element in enumerate(elements):
        file = find_image(images, element) if _is_safe(element.name) else None
        if file is None:
            missing.append(element.title)
            continue
        key = element.name
        if key in repeated:
            key = f"{element.subset or 'image'}_{element.id}_{number}/{element.name}"
        size, state = (element.height, element.width), file.stat()
        picture = f"{element.width}x{element.height} {state.st_size} {state.st_mtime_ns}"
        items.append(
            WorkItem(number, element.name, key, file, *size, bool(element.shapes), picture)
        )
    return items, missing, len(elements)


def _elements(annotations: Path) -> Iterator[CvatImage]:
    images, tracks = 0, False
    for piece in split_document(str(annotations)):
        images += piece.is_image
        tracks = tracks or b"<track " in piece.data
        if piece.is_image:
            element = read_element(piece.data)
            element.shapes = element.shapes[:1]  # of 100,000 images only this much is kept
            yield element
    if tracks and not images:
        raise CvatError(
            f'{annotations} is a video export (tracks); export the task as "CVAT for images 1.1"'
        )


def _is_safe(name: str) -> bool:
    """Names must not lead out of the folders."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.is_absolute() and ".." not in path.parts


def prediction_paths(items: Sequence[WorkItem]) -> dict[str, str]:
    """Key -> relative path of its JSON: the published ``<stem>.json``, in the image's folder.

    Where two images of a folder differ only in their suffix, the suffix stays in the name.
    """
    stems = Counter(str(PurePosixPath(i.key).with_suffix("")).casefold() for i in items)
    paths = {}
    for item in items:
        stem = PurePosixPath(item.key).with_suffix("")
        alone = stems[str(stem).casefold()] == 1
        paths[item.key] = f"{stem if alone else item.key}.json"
    return paths


def plan_batches(
    items: Sequence[WorkItem], batch_size: int, max_pixels: int
) -> Iterator[list[WorkItem]]:
    """Groups images of one size, in the order in which their groups fill.

    The plan depends on the whole list only, not on what is done already: a resumed run computes the
    same batches, and therefore the same numbers, as one that was never interrupted.

    Args:
        items: all images.
        batch_size: most images a batch.
        max_pixels: most pixels a batch; an image above it is a batch of its own.
    """
    groups: dict[tuple[int, int], list[WorkItem]] = {}
    for item in items:
        size = (item.height, item.width)
        group = groups.setdefault(size, [])
        group.append(item)
        most = max(1, min(batch_size, max_pixels // max(item.height * item.width, 1)))
        if len(group) >= most:
            yield groups.pop(size)
    yield from groups.values()


def load_image(item: WorkItem) -> np.ndarray:
    """uint8 [H, W, 3], BGR, at the size that the annotation file says.

    CVAT shows images turned as their EXIF says; a file that fits only unturned is taken unturned.

    Raises:
        ImageProblem: it cannot be decoded, or has another size.
    """
    if min(item.height, item.width) < 1:
        raise ImageProblem(
            "its element in the annotation file has no usable width and height: write them in, or "
            "export the task again"
        )
    try:
        image = read_image(str(item.file), "BGR")
    except DECODE_FAILURES as error:
        raise ImageProblem(f"cannot be decoded: {error}") from error
    if warning := depth_warning(str(item.file)):
        logger.warning(warning)
    wanted = (item.height, item.width)
    if image.shape[:2] != wanted:
        plain = cv2.imread(str(item.file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if plain is not None and plain.shape[:2] == wanted:
            return plain
        raise ImageProblem(
            f"the file is {image.shape[1]}x{image.shape[0]}, but the annotation file says "
            f"{item.width}x{item.height}"
        )
    return np.ascontiguousarray(image)
