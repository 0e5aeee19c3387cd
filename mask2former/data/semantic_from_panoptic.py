"""Derives semantic label maps from a panoptic annotation file."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from mask2former.data.preparation.command import Options
from mask2former.data.preparation.errors import PreparationError
from mask2former.data.preparation.files import finished, need, read_json, read_labels, save_image
from mask2former.data.preparation.parallel import work_through

UNLABELLED = 255


def write_semantic_maps(
    panoptic_json: str | os.PathLike,
    panoptic_root: str | os.PathLike,
    output: str | os.PathLike,
    labels: Mapping[int, int],
    *,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    remedy: str = "See datasets/README.md.",
) -> int:
    """Writes ``<output>/<file_name>`` (uint8 PNG) for every annotation of ``panoptic_json``.

    Maps that exist are kept and each file appears complete or not at all, so an interrupted run is
    taken up by the next.

    Args:
        panoptic_json: annotations in COCO's panoptic format.
        panoptic_root: folder of its RGB-coded PNGs.
        output: target folder.
        labels: dataset category id -> label, 0..254; pixels of no segment get 255.
        workers: processes; defaults to the number of cores.
        progress: show a progress bar on stderr.
        overwrite: make maps again that exist.
        remedy: said where the annotations are missing.

    Returns:
        the number of maps written.

    Raises:
        FileNotFoundError: the annotation file or the folder of PNGs is missing.
        ValueError: a segment's category is not in ``labels`` (names image and category).
    """
    need(Path(panoptic_json), "the panoptic annotations", remedy)
    need(Path(panoptic_root), "the PNGs of the panoptic annotations", remedy)
    annotations = read_json(Path(panoptic_json))["annotations"]
    output = Path(output)
    present = finished(output)
    if overwrite:
        present = set()
    missing = [a for a in annotations if a["file_name"] not in present]
    work = partial(_write_map, Path(panoptic_root), output, dict(labels))
    options = Options(output, workers or os.cpu_count() or 1, overwrite, progress)
    for _ in work_through(work, missing, options, output.name):
        pass
    return len(missing)


def _write_map(root: Path, output: Path, labels: dict[int, int], annotation: dict) -> None:
    rgb = read_labels(root / annotation["file_name"])
    if rgb.ndim != 3:
        raise PreparationError(f"{root / annotation['file_name']} is no RGB-coded PNG of segments")
    rgb = rgb.astype(np.uint32)
    ids = rgb[..., 0] | (rgb[..., 1] << 8) | (rgb[..., 2] << 16)
    segments = {s["id"]: s["category_id"] for s in annotation["segments_info"]}
    for category in segments.values():
        if category not in labels:
            raise PreparationError(
                f"{annotation['file_name']} has a segment of category {category}, which the "
                "class table does not contain"
            )
    known = np.array(sorted(segments), np.uint32)
    semantic = np.full(ids.shape, UNLABELLED, np.uint8)
    if len(known):
        # One look-up for all segments.
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        values = np.array([labels[segments[i]] for i in known.tolist()], np.uint8)
        semantic = np.where(known[place] == ids, values[place], semantic)
    save_image(output / annotation["file_name"], semantic)
