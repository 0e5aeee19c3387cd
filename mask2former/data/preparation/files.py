"""Reading of downloads and writing without halves: a file is there complete, or not at all."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .errors import MissingInput, PreparationError

_PARTIAL = re.compile(r"\.(.+)\.partial-(\d+)$")


def need(path: Path, what: str, remedy: str) -> Path:
    """``path``, if it exists.

    Args:
        path: file or folder of the download.
        what: said of it in the error, e.g. "the instance annotations".
        remedy: where it is to be had.

    Raises:
        MissingInput: it does not exist.
    """
    if not path.exists():
        raise MissingInput(f"{os.path.abspath(path)} is missing ({what})", remedy)
    return path


def read_labels(path: Path) -> np.ndarray:
    """Values of a label image: [H, W] (palette images give their indices) or [H, W, 3].

    Raises:
        PreparationError: it cannot be decoded (names it).
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise MissingInput(f"{path} is missing", "Unpack the download again.") from None
        raise PreparationError(
            f"{path} cannot be read ({error}); unpack the download again"
        ) from error


def image_size(path: Path) -> tuple[int, int]:
    """Height and width, from the header alone."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise MissingInput(f"{path} is missing", "Unpack the download again.") from None
        raise PreparationError(
            f"{path} cannot be read ({error}); unpack the download again"
        ) from error


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        PreparationError: it is no JSON (names file and place).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PreparationError(f"{path} is no readable JSON ({error})") from error


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls ``write`` with a name beside ``path`` and then gives the file its name."""
    scratch = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        write(scratch)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def save_image(path: Path, array: np.ndarray, **options: Any) -> None:
    """Writes an image in the format of the suffix.

    Args:
        path: ``.png`` or ``.tif``; the folder exists.
        array: uint8 [H, W], uint8 RGB [H, W, 3], or uint16 [H, W] (16-bit grey).
        options: of Pillow's ``save``.
    """
    kind = Image.registered_extensions()[path.suffix.lower()]
    image = Image.fromarray(array)
    write_atomically(path, lambda scratch: image.save(scratch, format=kind, **options))


def save_json(path: Path, content: Any, **options: Any) -> None:
    """Writes JSON in one line (``options`` as of ``json.dumps``); folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, **options)
    write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def is_complete(summary: Path, image_ids: Iterable[str]) -> bool:
    """Whether a COCO json has been written for exactly these images, in this order."""
    return summary.exists() and [i["id"] for i in read_json(summary)["images"]] == list(image_ids)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name without using space; copies it where that is not possible."""

    def write(scratch: Path) -> None:
        try:
            os.link(source, scratch)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, scratch)

    write_atomically(target, write)


def finished(folder: Path) -> set[str]:
    """Names of the files in ``folder``, which is made; what killed runs left is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    names = set()
    for entry in os.scandir(folder):
        partial = _PARTIAL.match(entry.name)
        if partial is None:
            names.add(entry.name)
        elif not _runs(int(partial.group(2))):
            os.unlink(entry.path)
    return names


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
