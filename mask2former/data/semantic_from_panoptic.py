"""Derives semantic label maps from a panoptic annotation file."""

import json
import multiprocessing
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

UNLABELLED = 255


def write_semantic_maps(
    panoptic_json: str | os.PathLike,
    panoptic_root: str | os.PathLike,
    output: str | os.PathLike,
    labels: Mapping[int, int],
    *,
    workers: int | None = None,
    progress: bool = True,
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

    Returns:
        the number of maps written.

    Raises:
        FileNotFoundError: the annotation file or the folder of PNGs is missing.
        ValueError: a segment's category is not in ``labels`` (names image and category).
    """
    for path in (panoptic_json, panoptic_root):
        if not os.path.exists(path):
            raise FileNotFoundError(f"{os.path.abspath(path)} is missing; see datasets/README.md")
    annotations = json.loads(Path(panoptic_json).read_text())["annotations"]
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    present = {entry.name for entry in os.scandir(output)}
    missing = [a for a in annotations if a["file_name"] not in present]
    work = partial(_write_map, Path(panoptic_root), output, dict(labels))
    workers = min(workers or os.cpu_count() or 1, max(1, len(missing)))
    if workers == 1:
        for _ in _bar(map(work, missing), len(missing), output.name, progress):
            pass
    else:
        with multiprocessing.Pool(workers) as pool:
            done = pool.imap_unordered(work, missing, chunksize=8)
            for _ in _bar(done, len(missing), output.name, progress):
                pass
    return len(missing)


def _bar(items, total: int, name: str, show: bool):
    if not show:
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, desc=name, unit="img")


def _write_map(root: Path, output: Path, labels: dict[int, int], annotation: dict) -> None:
    rgb = np.asarray(Image.open(root / annotation["file_name"]).convert("RGB")).astype(np.uint32)
    ids = rgb[..., 0] | (rgb[..., 1] << 8) | (rgb[..., 2] << 16)
    semantic = np.full(ids.shape, UNLABELLED, np.uint8)
    for segment in annotation["segments_info"]:
        category = segment["category_id"]
        if category not in labels:
            raise ValueError(
                f"{annotation['file_name']} has a segment of category {category}, which the "
                "class table does not contain"
            )
        semantic[ids == segment["id"]] = labels[category]
    scratch = output / f".{annotation['file_name']}.partial-{os.getpid()}"
    Image.fromarray(semantic).save(scratch, format="PNG")
    os.replace(scratch, output / annotation["file_name"])
