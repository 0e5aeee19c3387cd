"""Writes scenes in COCO's panoptic + instances + semantic layout.

Under the target folder::

    {train,val}/<image id, 12 digits>.jpg
    panoptic_{train,val}/<id>.png           RGB-coded segment ids, 0 is void
    panoptic_semseg_{train,val}/<id>.png    contiguous class 0..11, 255 where void
    annotations/panoptic_{train,val}.json
    annotations/instances_{train,val}.json
    manifest.json                           the arguments that made it
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..catalogs import load_table
from .encoding import bounding_box, encode_mask, encode_rle, ids_to_rgb
from .scene import Scene, SceneSpec, make_scene

# Part of the manifest: raise it when the same arguments would draw other pictures.
FORMAT_VERSION = 1
VOID_LABEL = 255
SPLITS = ("train", "val")
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class ShapesSpec:
    """Everything that decides the content of the set.

    Attributes:
        train, val: number of pictures in each split.
        seed: root of all randomness. Picture i of a split draws from
            ``SeedSequence([seed, split, i])``: no two pictures share a stream, the splits never
            do, and neither the number of workers nor of pictures changes a picture.
        scene: limits of one picture.
    """

    train: int = 1200
    val: int = 200
    seed: int = 0
    scene: SceneSpec = field(default_factory=SceneSpec)

    def manifest(self) -> dict[str, Any]:
        """What is compared to decide whether a folder can be reused."""
        return {"format": FORMAT_VERSION, **asdict(self)}


def prepare_shapes(
    folder: str | os.PathLike,
    spec: ShapesSpec | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> bool:
    """Makes the set at ``folder``, unless it is there already with the same arguments.

    The set is written beside the target and moved into place when complete, so an interrupted run
    leaves nothing half-written. A set made with other arguments is replaced.

    Args:
        folder: target, usually ``$DETECTRON2_DATASETS/shapes``.
        spec: content; defaults to the published one.
        workers: processes; defaults to the number of cores.
        progress: show a progress bar on stderr.

    Returns:
        True if pictures were written, False if what was there could be reused.

    Raises:
        ValueError: a count is below one, or sides or radii are out of order.
        FileExistsError: ``folder`` exists, is not empty and was not made by this function.
    """
    spec = spec or ShapesSpec()
    _check(spec)
    folder = Path(folder)
    manifest_file = folder / "manifest.json"
    if manifest_file.is_file():
        if json.loads(manifest_file.read_text()) == spec.manifest():
            return False
    elif folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} holds files but no manifest.json, so it was not made by prepare_shapes. "
            "Move it away or choose another --output."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _write_all(scratch, spec, workers or os.cpu_count() or 1, progress)
        (scratch / "manifest.json").write_text(json.dumps(spec.manifest(), indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _check(spec: ShapesSpec) -> None:
    scene = spec.scene
    for name, value in (("train", spec.train), ("val", spec.val), ("max_things", scene.max_things)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not 32 <= scene.min_side <= scene.max_side:
        raise ValueError(f"need 32 <= min_side <= max_side, not {scene.min_side}, {scene.max_side}")
    if not 0 < scene.min_radius <= scene.max_radius:
        raise ValueError(
            f"need 0 < min_radius <= max_radius, not {scene.min_radius}, {scene.max_radius}"
        )


def _write_all(root: Path, spec: ShapesSpec, workers: int, progress: bool) -> None:
    for split in SPLITS:
        for name in (split, f"panoptic_{split}", f"panoptic_semseg_{split}"):
            (root / name).mkdir(parents=True)
    (root / "annotations").mkdir()
    counts = {"train": spec.train, "val": spec.val}
    tasks = [(str(root), spec, split, i) for split in SPLITS for i in range(counts[split])]
    records: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for split, record in _with_bar(_run(tasks, workers), len(tasks), progress):
        records[split].append(record)
    for split in SPLITS:
        _write_json(root / "annotations", split, records[split])


def _run(tasks: list[tuple], workers: int) -> Iterator[tuple[str, dict]]:
    if workers <= 1:
        yield from map(_write_picture, tasks)
        return
    threads = cv2.getNumThreads()
    # Here and not in the workers: a forked child must not inherit a pool of threads it lacks.
    cv2.setNumThreads(0)
    try:
        with multiprocessing.Pool(workers) as pool:
            yield from pool.imap(_write_picture, tasks, chunksize=8)
    finally:
        cv2.setNumThreads(threads)


def _with_bar(items: Iterable, total: int, show: bool) -> Iterable:
    if not show:
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, desc="shapes", unit="img")


def picture_rng(spec: ShapesSpec, split: str, index: int) -> np.random.Generator:
    """The generator that draws picture ``index`` of ``split``."""
    return np.random.default_rng([spec.seed, SPLITS.index(split), index])


def image_id(split: str, index: int) -> int:
    """Image ids have gaps, like COCO's, so that code mistaking them for positions is found out."""
    return 100_000 * (1 + SPLITS.index(split)) + 7 * index + 3


def _write_picture(task: tuple[str, ShapesSpec, str, int]) -> tuple[str, dict]:
    root, spec, split, index = task
    rng = picture_rng(spec, split, index)
    scene = make_scene(rng, spec.scene)
    number = image_id(split, index)
    stem = f"{number:012d}"
    segments, panoptic, semantic = _encode(scene, rng)
    _save(f"{root}/{split}/{stem}.jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    _save(f"{root}/panoptic_{split}/{stem}.png", ids_to_rgb(panoptic))
    _save(f"{root}/panoptic_semseg_{split}/{stem}.png", semantic)
    height, width = semantic.shape
    return split, {
        "image": {"id": number, "file_name": f"{stem}.jpg", "height": height, "width": width},
        "segments": segments,
    }


def _save(path: str, picture: np.ndarray, options: list[int] | None = None) -> None:
    if picture.ndim == 3:
        picture = picture[..., ::-1]  # OpenCV writes BGR
    if not cv2.imwrite(path, picture, options or []):
        raise OSError(f"Could not write {path}")


def _encode(
    scene: Scene, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Segment records, panoptic ids (int32 [H, W]) and contiguous classes (uint8 [H, W])."""
    table = load_table("shapes")
    position = {row["name"]: i for i, row in enumerate(table)}
    ids = rng.choice(2**24 - 1, len(scene.segments), replace=False) + 1
    panoptic = np.zeros(scene.segment_map.shape, np.int32)
    semantic = np.full(scene.segment_map.shape, VOID_LABEL, np.uint8)
    records = []
    for segment, number in zip(scene.segments, ids):
        mask = scene.segment_map == segment.index
        panoptic[mask] = number
        semantic[mask] = position[segment.name]
        record = {
            "id": int(number),
            "category_id": table[position[segment.name]]["id"],
            "area": int(mask.sum()),
            "bbox": bounding_box(mask),
            "iscrowd": int(segment.is_crowd),
        }
        if segment.is_thing:
            record["segmentation"] = encode_rle(mask) if segment.is_crowd else encode_mask(mask)
        records.append(record)
    return records, panoptic, semantic


def _write_json(folder: Path, split: str, records: list[dict]) -> None:
    categories = [
        {key: row[key] for key in ("id", "name", "isthing", "color", "supercategory")}
        for row in load_table("shapes")
    ]
    images = [record["image"] for record in records]
    panoptic, instances = [], []
    for record in records:
        number = record["image"]["id"]
        plain = [{k: v for k, v in s.items() if k != "segmentation"} for s in record["segments"]]
        panoptic.append(
            {"image_id": number, "file_name": f"{number:012d}.png", "segments_info": plain}
        )
        for segment in record["segments"]:
            if "segmentation" in segment:
                instances.append({**segment, "id": len(instances) + 1, "image_id": number})
    info = {"description": "shapes, a synthetic set", "version": str(FORMAT_VERSION)}
    things = [c for c in categories if c["isthing"]]
    for kind, annotations, classes in (
        ("panoptic", panoptic, categories),
        ("instances", instances, things),
    ):
        content = {
            "info": info,
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": classes,
        }
        (folder / f"{kind}_{split}.json").write_text(json.dumps(content))
