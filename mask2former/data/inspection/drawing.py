"""Pictures of records with their annotations, and all of them on one sheet."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detectron2.data import MetadataCatalog
from detectron2.utils.visualizer import Visualizer

from ..dataset_mappers.reading import read_image
from ..drawable import drawable_record, for_drawing

# Longer side of a panel in pixels: small pictures are enlarged so that labels can be read.
_SIDE = 640
_MAX_SCALE = 5.0
# Keys of a record that `Visualizer.draw_dataset_dict` draws, by kind of annotation.
_KINDS = {
    "semantic": ("sem_seg_file_name",),
    "panoptic": ("pan_seg_file_name", "segments_info"),
    "instances": ("annotations",),
}


def draw_record(record: dict[str, Any], name: str) -> np.ndarray:
    """The image, then a panel with each kind of annotation of the record.

    Args:
        record: detectron2's standard dict.
        name: its data set, for class names and colours.

    Returns:
        uint8 RGB [h, n w, 3], n = 1 + kinds.

    Raises:
        ImageDecodeError: a file is missing or broken.
    """
    image = read_image(record["file_name"], "RGB")
    scale = min(_MAX_SCALE, _SIDE / max(image.shape[:2]))
    metadata = for_drawing(MetadataCatalog.get(name))
    record = drawable_record(record, metadata)
    panels = [Visualizer(image, metadata, scale=scale).output.get_image()]
    for keys in _KINDS.values():
        if keys[0] in record:
            visualizer = Visualizer(image, metadata, scale=scale)
            drawn = visualizer.draw_dataset_dict({k: record[k] for k in keys})
            panels.append(drawn.get_image())
    return np.concatenate(panels, axis=1)


def contact_sheet(
    pictures: Sequence[tuple[str, np.ndarray]], *, width: int = 1600, columns: int | None = None
) -> np.ndarray:
    """Pictures in a grid, each under its caption.

    Args:
        pictures: (caption, uint8 RGB [h, w, 3]), at least one.
        width: of the sheet in pixels.
        columns: default: one for wide pictures, more for narrow ones.

    Returns:
        uint8 RGB [H, width, 3].
    """
    ratio = max(p.shape[1] / p.shape[0] for _, p in pictures)
    columns = columns or max(1, min(len(pictures), round(4 / ratio)))
    cell_w = width // columns
    cell_h = math.ceil(max(cell_w * p.shape[0] / p.shape[1] for _, p in pictures)) + 18
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (width, rows * cell_h), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (caption, picture) in enumerate(pictures):
        x, y = i % columns * cell_w, i // columns * cell_h
        height = round((cell_w - 6) * picture.shape[0] / picture.shape[1])
        small = Image.fromarray(picture).resize((cell_w - 6, max(1, height)), Image.LANCZOS)
        draw.text((x + 3, y + 3), caption, fill="black")
        sheet.paste(small, (x + 3, y + 17))
    return np.asarray(sheet)


def caption_of(record: dict[str, Any]) -> str:
    """Short name of a record's image."""
    return os.path.basename(record["file_name"])
