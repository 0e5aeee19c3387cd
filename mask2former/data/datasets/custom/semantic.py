"""Custom semantic sets: a folder of images and a folder of label images."""

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..declare import register
from .spec import IMAGE_SUFFIXES, Spec

logger = logging.getLogger(__name__)

_LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


def register_semantic(spec: Spec) -> None:
    """``IMAGES`` and ``ANNOTATIONS``: folders with equal relative stems, nested as you like.

    Label images hold class ids (8- or 16-bit, or palette indices) or, with ``COLORS``, the colour
    of each class; those are turned into ids once, into ``<ANNOTATIONS>_ids``. ``CLASSES`` is
    needed: label images do not name their classes.
    """
    images = spec.require("IMAGES", folder=True)
    labels = spec.require("ANNOTATIONS", folder=True)
    if not spec.classes:
        raise spec.error("CLASSES", "is missing: label images do not say the names of their ids")
    register(
        spec.name,
        lambda: _records(spec, images, labels),
        evaluator_type="sem_seg",
        image_root=images,
        sem_seg_root=labels,
        ignore_label=spec.ignore_label,
        stuff_classes=list(spec.classes),
        stuff_colors=spec.with_colors(len(spec.classes)),
    )


def _records(spec: Spec, images: str, labels: str) -> list[dict[str, Any]]:
    image_of = dict(_by_stem(images, IMAGE_SUFFIXES))
    label_of = dict(_by_stem(labels, _LABEL_SUFFIXES))
    common = sorted(image_of.keys() & label_of.keys())
    if not common:
        raise spec.error(
            "ANNOTATIONS",
            f"{labels}: none of its {len(label_of)} label images has the name of one of the "
            f"{len(image_of)} images in {images}",
        )
    lone = len(image_of.keys() ^ label_of.keys())
    if lone:
        logger.warning("%s: %d files have no partner and are left out", spec.name, lone)
    chosen = {stem: label_of[stem] for stem in common}
    first = next(iter(chosen.values()))
    if _is_colored(first):
        chosen = _ids_of_colors(spec, chosen, Path(labels))
    return [
        {"file_name": str(image_of[stem]), "sem_seg_file_name": str(chosen[stem])}
        for stem in common
    ]


def _by_stem(folder: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    root = Path(folder)
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file():
            yield str(path.relative_to(root).with_suffix("")), path


def _is_colored(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode not in ("L", "P", "1", "I", "I;16", "I;16B")


def _ids_of_colors(spec: Spec, labels: dict[str, Path], folder: Path) -> dict[str, Path]:
    if not spec.colors:
        raise spec.error(
            "COLORS",
            f"is missing: {next(iter(labels.values()))} is a colour image; give one RGB triple a "
            "class, or label images of ids",
        )
    target = folder.with_name(folder.name + "_ids")
    made = {stem: target / f"{stem}.png" for stem in labels}
    code, same = json.dumps([spec.colors, spec.ignore_label]), target / "colors.json"
    if not same.exists() or same.read_text() != code:  # ids of other COLORS are others
        for file in made.values():
            file.unlink(missing_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        same.write_text(code)
    todo = [s for s in labels if not _is_current(made[s], labels[s])]
    if todo:
        logger.info("%s: writing label ids of %d images to %s", spec.name, len(todo), target)

        def convert(stem: str) -> None:
            _write_ids(spec, labels[stem], made[stem])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(tqdm(pool.map(convert, todo), total=len(todo), desc="label ids", unit="image"))
    return made


def _is_current(made: Path, source: Path) -> bool:
    return made.exists() and made.stat().st_mtime >= source.stat().st_mtime


def _write_ids(spec: Spec, source: Path, target: Path) -> None:
    with Image.open(source) as image:
        rgb = np.asarray(image.convert("RGB")).astype(np.uint32)
    codes = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    ids = np.full(codes.shape, spec.ignore_label, dtype=np.uint8)
    for index, (red, green, blue) in enumerate(spec.colors):
        ids[codes == (red << 16 | green << 8 | blue)] = index
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    Image.fromarray(ids).save(partial, format="PNG")
    os.replace(partial, target)
