"""Pascal VOC detection -> records."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from detectron2._missing import missing_getattr
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._files import require
from detectron2.data.datasets._tables import load_table
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

__all__ = ["CLASS_NAMES", "load_voc_instances", "register_pascal_voc"]

CLASS_NAMES = tuple(row["name"] for row in load_table("pascal_voc_classes"))


def load_voc_instances(dirname: str, split: str, class_names: Sequence[str]) -> list[dict]:
    """Read detection annotations of Pascal VOC.

    Args:
        dirname: folder with Annotations, ImageSets and JPEGImages.
        split: "train", "val", "test", "trainval".
        class_names: category i is ``class_names[i]``.

    Returns:
        records; boxes XYXY_ABS, from 0.

    Raises:
        FileNotFoundError: the list of images does not exist.
    """
    list_file = os.path.join(dirname, "ImageSets", "Main", f"{split}.txt")
    with PathManager.open(require(list_file, "list of images")) as f:
        image_ids = f.read().split()
    folder = PathManager.get_local_path(os.path.join(dirname, "Annotations"))
    records = []
    for image_id in image_ids:
        tree = ElementTree.parse(os.path.join(folder, f"{image_id}.xml"))
        records.append(
            {
                "file_name": os.path.join(dirname, "JPEGImages", f"{image_id}.jpg"),
                "image_id": image_id,
                "height": int(tree.findtext("./size/height")),
                "width": int(tree.findtext("./size/width")),
                "annotations": [_annotation(obj, class_names) for obj in tree.findall("object")],
            }
        )
    return records


def _annotation(obj: ElementTree.Element, class_names: Sequence[str]) -> dict:
    box = obj.find("bndbox")
    xmin, ymin, xmax, ymax = (float(box.findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax"))
    # VOC's pixels count from 1 and the maximum is included: a box of the whole image (1, 1, w, h)
    # becomes (0, 0, w, h).
    return {
        "category_id": class_names.index(obj.findtext("name")),
        "bbox": [xmin - 1.0, ymin - 1.0, xmax, ymax],
        "bbox_mode": BoxMode.XYXY_ABS,
    }


def register_pascal_voc(
    name: str,
    dirname: str,
    split: str,
    year: int,
    class_names: Sequence[str] = CLASS_NAMES,
) -> None:
    """Register one split of Pascal VOC; nothing is read before it is used."""
    DatasetCatalog.register(name, lambda: load_voc_instances(dirname, split, class_names))
    MetadataCatalog.get(name).set(
        thing_classes=list(class_names), dirname=dirname, year=year, split=split
    )


__getattr__ = missing_getattr(__name__)
