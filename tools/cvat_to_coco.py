#!/usr/bin/env python
"""Turns a CVAT export into COCO instance files, for the next training.

    python tools/cvat_to_coco.py corrected/ --output data/barrier --val-share 0.2

A config can also read the export itself (DATASETS.CUSTOM with FORMAT cvat, see
docs/custom-dataset.md); this is for other tools, and for a split that stays.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.cvat import CvatError
from mask2former.data.datasets.custom import CustomDatasetError, Spec
from mask2former.data.datasets.custom.cvat import register_cvat
from mask2former.data.datasets.custom.spec import is_validation


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="CVAT for images 1.1 -> COCO instances.",
        epilog="Writes OUTPUT/instances_train.json and OUTPUT/instances_val.json (only "
        "OUTPUT/instances.json without --val-share). Images stay where they are: file names are "
        "relative to the folder of images, which is printed.",
    )
    parser.add_argument("export", metavar="PATH", help="annotations.xml, or the folder it is in")
    parser.add_argument("--images", default="", metavar="DIR", help="default: images/ beside it")
    parser.add_argument("--output", required=True, metavar="DIR", help="is created")
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.0,
        metavar="P",
        help="share of images for validation; an image keeps its side when others are added",
    )
    parser.add_argument("--subset", default="", help="only this subset of a project")
    parser.add_argument("--labels", nargs="+", default=[], help="only these, in this order")
    parser.add_argument(
        "--keep-empty", action="store_true", help="keep images without annotations (background)"
    )
    return parser


def coco_file(records: list[dict[str, Any]], names: list[str], root: str) -> dict[str, Any]:
    """Records of a registered set -> the contents of an instances json; category ids from 1."""
    images, annotations = [], []
    for image_id, record in enumerate(records, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": os.path.relpath(record["file_name"], root),
                "width": record["width"],
                "height": record["height"],
            }
        )
        for annotation in record["annotations"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": annotation["category_id"] + 1,
                    "iscrowd": 0,
                    "bbox": [round(float(v), 2) for v in annotation["bbox"]],
                    **_segmentation(annotation["segmentation"], record),
                }
            )
    categories = [{"id": i, "name": n} for i, n in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _segmentation(segmentation: Any, record: dict[str, Any]) -> dict[str, Any]:
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        text = counts.decode() if isinstance(counts, bytes) else counts
        area = float(mask_util.area(segmentation))
        return {"segmentation": {"size": segmentation["size"], "counts": text}, "area": area}
    coded = mask_util.frPyObjects(segmentation, record["height"], record["width"])
    return {"segmentation": segmentation, "area": float(np.sum(mask_util.area(coded)))}


def main(argv: list[str] | None = None) -> int:
    """Writes the files; returns the exit status."""
    args = get_parser().parse_args(argv)
    name = "cvat_to_coco"
    if not 0 <= args.val_share < 1:
        print(f"cvat_to_coco.py: --val-share {args.val_share}: must be in [0, 1)", file=sys.stderr)
        return 2
    try:
        Path(args.output).mkdir(parents=True, exist_ok=True)
        entry = {
            "FORMAT": "cvat",
            "ANNOTATIONS": args.export,
            "IMAGES": args.images,
            "SPLIT": args.subset,
            "CLASSES": args.labels,
        }
        register_cvat(Spec.of(name, entry))
        records = DatasetCatalog.get(name)
    except (CvatError, CustomDatasetError, OSError) as error:
        print(f"cvat_to_coco.py: {error}".replace(f"DATASETS.CUSTOM.{name}.", ""), file=sys.stderr)
        return 2
    meta = MetadataCatalog.get(name)
    if not args.keep_empty:
        records = [r for r in records if r["annotations"]]
    output, root = Path(args.output), meta.image_root
    sides = {"instances": records}
    if args.val_share > 0:
        side = [
            is_validation(os.path.relpath(r["file_name"], root), args.val_share) for r in records
        ]
        sides = {
            "instances_train": [r for r, val in zip(records, side) if not val],
            "instances_val": [r for r, val in zip(records, side) if val],
        }
    for stem, chosen in sides.items():
        content = coco_file(chosen, meta.thing_classes, root)
        file = output / f"{stem}.json"
        file.write_text(json.dumps(content))
        counts = f"{len(content['images'])} images, {len(content['annotations'])} annotations"
        print(f"{file}: {counts}")
    print(f"images: {os.path.abspath(root)}\nclasses: {', '.join(meta.thing_classes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
