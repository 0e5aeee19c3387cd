"""Records of registered data sets, filtered and checked; ``detectron2.data.build`` exports them."""

import itertools
import logging
import os
import pickle
from collections.abc import Iterable

import numpy as np
from tabulate import tabulate
from termcolor import colored
from torch.utils import data as torchdata

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

# One logger with the module that users know.
logger = logging.getLogger("detectron2.data.build")


def get_detection_dataset_dicts(
    names: str | Iterable[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: list[str] | None = None,
    check_consistency: bool = True,
) -> list[dict] | torchdata.Dataset:
    """Load and concatenate registered data sets.

    Args:
        names: of one or more data sets.
        filter_empty: leave out images without annotations, or with crowd regions only (where
            records have annotations at all).
        min_keypoints: leave out images with fewer visible keypoints.
        proposal_files: one per data set, see :func:`load_proposals_into_dataset`.
        check_consistency: demand equal ``thing_classes`` and log the instances per class.

    Returns:
        records; or a torch Dataset where the catalog gave one.

    Raises:
        KeyError: a name is unknown (nearest names suggested).
        FileNotFoundError: annotations, or the image folder in the metadata, do not exist.
        AssertionError: a data set is empty, or nothing is left of it.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise AssertionError("No dataset is named: DATASETS.TRAIN or DATASETS.TEST is empty")
    loaded = [DatasetCatalog.get(name) for name in names]
    if isinstance(loaded[0], torchdata.Dataset):
        return loaded[0] if len(loaded) == 1 else torchdata.ConcatDataset(loaded)

    for name, records in zip(names, loaded):
        if not len(records):
            raise AssertionError(f"Dataset '{name}' is empty!")
        _check_image_folder(name)
    if proposal_files is not None:
        if len(proposal_files) != len(names):
            raise AssertionError(f"{len(names)} datasets but {len(proposal_files)} proposal files")
        loaded = [load_proposals_into_dataset(d, f) for d, f in zip(loaded, proposal_files)]
    records = list(itertools.chain.from_iterable(loaded))

    if "annotations" in records[0]:
        if filter_empty:
            records = filter_images_with_only_crowd_annotations(records)
        if min_keypoints > 0:
            records = filter_images_with_few_keypoints(records, min_keypoints)
        if check_consistency:
            _check_classes(names, records)
    if not records:
        raise AssertionError(f"No valid data found in {', '.join(names)}.")
    return records


def _check_image_folder(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    folder = metadata.get("image_root") or metadata.get("image_dir")
    if folder and not PathManager.exists(folder):
        root = os.getenv("DETECTRON2_DATASETS")
        raise FileNotFoundError(
            f"The image folder '{folder}' of dataset '{name}' does not exist. Built-in datasets "
            "are looked for under $DETECTRON2_DATASETS, which is "
            + (f"'{root}'." if root else "not set (so ./datasets is used).")
        )


def _check_classes(names: list[str], records: list[dict]) -> None:
    class_names = MetadataCatalog.get(names[0]).get("thing_classes")
    if class_names is None:
        return
    check_metadata_consistency("thing_classes", names)
    print_instances_class_histogram(records, class_names)


def filter_images_with_only_crowd_annotations(dataset_dicts: list[dict]) -> list[dict]:
    """Records with at least one annotation that is not a crowd region."""
    kept = [
        record
        for record in dataset_dicts
        if any(ann.get("iscrowd", 0) == 0 for ann in record["annotations"])
    ]
    logger.info(
        "Removed %d images with no usable annotations. %d images left.",
        len(dataset_dicts) - len(kept),
        len(kept),
    )
    return kept


def filter_images_with_few_keypoints(
    dataset_dicts: list[dict], min_keypoints_per_image: int
) -> list[dict]:
    """Records with at least that many visible keypoints over all annotations."""

    def visible(record: dict) -> int:
        return sum(
            int((np.asarray(ann["keypoints"][2::3]) > 0).sum())
            for ann in record["annotations"]
            if "keypoints" in ann
        )

    kept = [record for record in dataset_dicts if visible(record) >= min_keypoints_per_image]
    logger.info(
        "Removed %d images with fewer than %d keypoints.",
        len(dataset_dicts) - len(kept),
        min_keypoints_per_image,
    )
    return kept


def load_proposals_into_dataset(dataset_dicts: list[dict], proposal_file: str) -> list[dict]:
    """Add precomputed proposals to the records, in place.

    Args:
        dataset_dicts: records; those whose ``image_id`` the file knows get ``proposal_boxes``
            (float, XYXY) and ``proposal_objectness_logits``, by falling score, and
            ``proposal_bbox_mode``.
        proposal_file: pickle of a dict with the lists ``ids`` (or ``indexes``), ``boxes``,
            ``objectness_logits`` (or ``scores``) and optionally ``bbox_mode``. Pickles can run
            code: only load files you made.

    Returns:
        the same list.
    """
    logger.info("Loading proposals from: %s", proposal_file)
    with PathManager.open(proposal_file, "rb") as f:
        proposals = pickle.load(f, encoding="latin1")
    for new, old in (("ids", "indexes"), ("objectness_logits", "scores")):
        if old in proposals:
            proposals[new] = proposals.pop(old)
    position = {str(image_id): i for i, image_id in enumerate(proposals["ids"])}
    mode = BoxMode(proposals["bbox_mode"]) if "bbox_mode" in proposals else BoxMode.XYXY_ABS
    for record in dataset_dicts:
        i = position.get(str(record["image_id"]))
        if i is None:
            continue
        logits = proposals["objectness_logits"][i]
        order = logits.argsort()[::-1]
        record["proposal_boxes"] = proposals["boxes"][i][order]
        record["proposal_objectness_logits"] = logits[order]
        record["proposal_bbox_mode"] = mode
    return dataset_dicts


def print_instances_class_histogram(dataset_dicts: list[dict], class_names: list[str]) -> None:
    """Log how many (non-crowd) instances each class has, once per place and text.

    Raises:
        AssertionError: a category id is outside ``range(len(class_names))``; the file is named.
    """
    num_classes = len(class_names)
    counts = np.zeros(num_classes, dtype=np.int64)
    for record in dataset_dicts:
        for ann in record["annotations"]:
            if ann.get("iscrowd", 0) != 0:
                continue
            category = ann["category_id"]
            if not 0 <= category < num_classes:
                raise AssertionError(
                    f"Got an invalid category_id={category} for a dataset of {num_classes} "
                    f"classes, in the annotations of {record.get('file_name')}"
                )
            counts[category] += 1
    columns = min(6, num_classes * 2)

    def short(name: str) -> str:
        return name[:11] + ".." if len(name) > 13 else name

    cells: list = []
    for name, count in zip(class_names, counts.tolist()):
        cells += [short(name), count]
    total = sum(counts.tolist())
    cells += [None] * (-len(cells) % columns)
    if num_classes > 1:
        cells += ["total", total]
    cells += [None] * (-len(cells) % columns)
    table = tabulate(
        [cells[i : i + columns] for i in range(0, len(cells), columns)],
        headers=["category", "#instances"] * (columns // 2),
        tablefmt="pipe",
        numalign="left",
        stralign="center",
    )
    log_first_n(
        logging.INFO,
        f"Distribution of instances among all {num_classes} categories:\n{colored(table, 'cyan')}",
        key="message",
    )
