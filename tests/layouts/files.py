"""How the data sets write things down: pictures, ids as colours, polygons and run lengths."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from .scene import Scene

_CATALOGS = Path(__file__).resolve().parents[2] / "mask2former" / "data" / "catalogs"


def table(name: str) -> list[dict[str, Any]]:
    """A class table, read without importing mask2former: that would register data sets."""
    content = json.loads((_CATALOGS / f"{name}.json").read_text(encoding="utf-8"))
    return [dict(zip(content["columns"], row)) for row in content["rows"]]


def split_rows(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The stuff rows and the thing rows of a panoptic table."""
    return [r for r in rows if not r["isthing"]], [r for r in rows if r["isthing"]]


def save_picture(path: Path, array: np.ndarray, **options: Any) -> None:
    """Writes uint8 or uint16 [H, W] or uint8 RGB [H, W, 3]; the suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        options = {"quality": 92, **options}
    Image.fromarray(array).save(path, **options)


def save_json(path: Path, content: Any) -> None:
    """Writes JSON in one line, as the published files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def to_rgb(ids: np.ndarray) -> np.ndarray:
    """Panoptic coding: id = R + 256 G + 65536 B."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def box_xywh(mask: np.ndarray) -> list[int]:
    """COCO box of a mask that is not empty."""
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    return [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1]


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Outer outlines of a mask, as COCO's flat lists of corners."""
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    # Half a pixel out on the far sides, so that drawing them gives about the mask again.
    return [(o.reshape(-1, 2) + 0.5).ravel().tolist() for o in outlines if len(o) >= 3]


def uncompressed_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's form of a crowd: run lengths down the columns, as numbers, zeros first."""
    flat = mask.astype(np.uint8).ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"counts": counts, "size": list(mask.shape)}


def coco_annotation(
    mask: np.ndarray, number: int, image_id: Any, category_id: int, *, crowd: bool = False
) -> dict[str, Any]:
    """One entry of ``annotations`` of an instances json."""
    outline = uncompressed_rle(mask) if crowd else polygons(mask)
    rle = mask_util.frPyObjects(outline, *mask.shape)
    rle = mask_util.merge(rle) if isinstance(rle, list) else rle
    return {
        "segmentation": outline,
        "area": float(mask_util.area(rle)),
        "iscrowd": int(crowd),
        "image_id": image_id,
        "bbox": mask_util.toBbox(rle).tolist(),
        "category_id": category_id,
        "id": number,
    }


def panoptic_segments(
    scene: Scene,
    stuff: list[dict[str, Any]],
    things: list[dict[str, Any]],
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segment ids [H, W] (0 = void) and ``segments_info``; stuff of one class is one segment."""
    ids = np.zeros(scene.owner.shape, np.int64)
    segments: dict[int, dict[str, Any]] = {}
    stuff_ids: dict[int, int] = {}
    for i, shape in enumerate(scene.shapes):
        row = (things if shape.isthing else stuff)[shape.label]
        new = int(rng.integers(1, 2**24))
        number = new if shape.isthing else stuff_ids.setdefault(row["id"], new)
        ids[scene.mask(i)] = number
        segments[number] = {
            "id": number,
            "category_id": row["id"],
            "iscrowd": int(shape.crowd),
        }
    for number, info in segments.items():
        mask = ids == number
        info["area"] = int(mask.sum())
        info["bbox"] = box_xywh(mask)
    return ids, list(segments.values())


def panoptic_categories(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``categories`` of a panoptic json."""
    keep = ("id", "name", "isthing", "color")
    return [
        {k: r[k] for k in keep} | {"supercategory": r.get("supercategory") or r["name"]}
        for r in rows
    ]
