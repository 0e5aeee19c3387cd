"""COCO instances and semantic folders -> records; public address of the COCO conversion."""

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from typing import Any

import pycocotools.mask as mask_util
from fvcore.common.timer import Timer
from iopath.common.file_io import file_lock

from detectron2._missing import missing_getattr
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._coco_export import convert_to_coco_dict, convert_to_coco_json
from detectron2.data.datasets._files import require
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

__all__ = [
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "file_lock",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
]

logger = logging.getLogger(__name__)


def load_coco_json(
    json_file: str,
    image_root: str,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict]:
    """Read a json file in COCO's instances format.

    Args:
        json_file: path.
        image_root: folder of the images.
        dataset_name: set ``thing_classes`` and ``thing_dataset_id_to_contiguous_id`` in its
            metadata, and number the categories 0..K-1 by rising id; None keeps the ids of the file.
        extra_annotation_keys: annotation keys to keep besides iscrowd, bbox, keypoints,
            category_id and segmentation.

    Returns:
        records by rising image id.

    Raises:
        FileNotFoundError: no such json file.
        AssertionError: the metadata say other classes; annotation ids are not unique; ``ignore``
            is set.
        ValueError: an empty box.
        KeyError: an annotation of an unknown category.
    """
    from pycocotools.coco import COCO

    require(json_file, "annotation file", dataset_name)
    timer = Timer()
    local_file = PathManager.get_local_path(json_file)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(local_file)
    if timer.seconds() > 1:
        logger.info("Loading %s takes %.2f seconds.", json_file, timer.seconds())

    id_map = None if dataset_name is None else _number_categories(coco, dataset_name)
    image_ids = sorted(coco.imgs)
    annotations = [coco.imgToAnns[image_id] for image_id in image_ids]
    if "minival" not in json_file:
        # The public minival files of COCO 2014 repeat annotation ids.
        ids = [ann["id"] for of_image in annotations for ann in of_image]
        if len(set(ids)) != len(ids):
            raise AssertionError(f"Annotation ids in '{json_file}' are not unique!")
    logger.info("Loaded %d images in COCO format from %s", len(image_ids), json_file)

    keep = ["iscrowd", "bbox", "keypoints", "category_id", *(extra_annotation_keys or [])]
    records, invalid = [], 0
    for image_id, of_image in zip(image_ids, annotations):
        image = coco.imgs[image_id]
        objects = []
        for ann in of_image:
            converted = _convert_annotation(ann, image_id, keep, id_map, json_file)
            if converted is None:
                invalid += 1
            else:
                objects.append(converted)
        records.append(
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image_id,
                "annotations": objects,
            }
        )
    if invalid:
        logger.warning(
            "Filtered out %d instances without valid segmentation in %s. There might be issues in "
            "your dataset generation process: a polygon needs at least three points, given as an "
            "even number of coordinates.",
            invalid,
            json_file,
        )
    return records


def _number_categories(coco: Any, dataset_name: str) -> dict[int, int]:
    """Category id -> 0..K-1; goes to the metadata with the names."""
    ids = sorted(coco.getCatIds())
    metadata = MetadataCatalog.get(dataset_name)
    metadata.thing_classes = [category["name"] for category in coco.loadCats(ids)]
    if ids and not (min(ids) == 1 and max(ids) == len(ids)) and "coco" not in dataset_name:
        logger.warning(
            "Category ids of '%s' are not in [1, #categories]: they are numbered 0..%d by rising "
            "id.",
            dataset_name,
            len(ids) - 1,
        )
    id_map = {category_id: i for i, category_id in enumerate(ids)}
    metadata.thing_dataset_id_to_contiguous_id = id_map
    return id_map


def _convert_annotation(
    ann: dict,
    image_id: int,
    keep: Sequence[str],
    id_map: dict[int, int] | None,
    json_file: str,
) -> dict | None:
    """COCO annotation -> annotation of a record; None where its segmentation is unusable."""
    if ann["image_id"] != image_id:
        raise AssertionError(f"Annotation {ann.get('id')} is listed under image {image_id}")
    if ann.get("ignore", 0) != 0:
        raise AssertionError(
            f"'ignore' in COCO json file is not supported (annotation {ann.get('id')} in "
            f"'{json_file}'); mark crowd regions with 'iscrowd'."
        )
    obj = {key: ann[key] for key in keep if key in ann}
    if "bbox" in obj and len(obj["bbox"]) == 0:
        raise ValueError(
            f"One annotation of image {image_id} contains empty 'bbox' value! This json does not "
            f"have valid COCO format ('{json_file}', annotation {ann.get('id')})."
        )
    # Missing or empty: there is no mask, only a box.
    if ann.get("segmentation"):
        segmentation = _usable_segmentation(ann["segmentation"])
        if segmentation is None:
            return None
        obj["segmentation"] = segmentation
    if obj.get("keypoints"):
        # COCO's keypoints are pixel indices, ours are coordinates of their centres.
        obj["keypoints"] = [
            value if i % 3 == 2 else value + 0.5 for i, value in enumerate(obj["keypoints"])
        ]
    obj["bbox_mode"] = BoxMode.XYWH_ABS
    if id_map is not None:
        category_id = obj["category_id"]
        if category_id not in id_map:
            raise KeyError(
                f"Encountered category_id={category_id} but this id does not exist in "
                f"'categories' of '{json_file}'."
            )
        obj["category_id"] = id_map[category_id]
    return obj


def _usable_segmentation(segmentation: dict | list) -> dict | list | None:
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            return mask_util.frPyObjects(segmentation, *segmentation["size"])
        return segmentation
    polygons = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
    return polygons or None


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict]:
    """Pair the label maps of one folder with the images of another, by file name.

    Args:
        gt_root: folder of label maps; not searched recursively.
        image_root: folder of images.
        gt_ext: extension of the label maps.
        image_ext: extension of the images.

    Returns:
        records with ``file_name`` and ``sem_seg_file_name`` only, by file name. What has no
        counterpart is left out with a warning.

    Raises:
        FileNotFoundError: a folder does not exist.
        AssertionError: there is no label map.
    """
    labels = _stems(require(gt_root, "folder of label maps"), gt_ext)
    images = _stems(require(image_root, "image folder"), image_ext)
    if not labels:
        raise AssertionError(f"No annotations found in {gt_root}: no file ends in '{gt_ext}'.")
    if labels.keys() != images.keys():
        logger.warning(
            "Directory %s and %s has %d and %d files, respectively; using the %d they share.",
            image_root,
            gt_root,
            len(images),
            len(labels),
            len(labels.keys() & images.keys()),
        )
    stems = sorted(labels.keys() & images.keys())
    logger.info("Loaded %d images with semantic segmentation from %s", len(stems), image_root)
    return [
        {
            "file_name": os.path.join(image_root, images[stem]),
            "sem_seg_file_name": os.path.join(gt_root, labels[stem]),
        }
        for stem in stems
    ]


def _stems(folder: str, extension: str) -> dict[str, str]:
    """File name without extension -> file name."""
    return {
        os.path.splitext(name)[0]: name
        for name in PathManager.ls(folder)
        if name.endswith(extension)
    }


def register_coco_instances(
    name: str, metadata: dict[str, Any], json_file: str, image_root: str
) -> None:
    """Register a data set in COCO's instances format; nothing is read before it is used.

    Args:
        name: e.g. "my_train".
        metadata: extra metadata; may be empty (classes are read from the file).
        json_file: annotations.
        image_root: folder of the images.

    Raises:
        AssertionError: an argument has the wrong type, or ``name`` has other metadata already.
    """
    if not isinstance(name, str):
        raise AssertionError(f"name must be a str, got {name!r}")
    if not isinstance(json_file, (str, os.PathLike)):
        raise AssertionError(f"json_file must be a path, got {json_file!r}")
    if not isinstance(image_root, (str, os.PathLike)):
        raise AssertionError(f"image_root must be a path, got {image_root!r}")
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )


__getattr__ = missing_getattr(__name__)
