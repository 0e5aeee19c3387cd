"""Where datasets live, and a clear word when one does not."""

import os

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..catalogs import load_table

VARIABLE = "DETECTRON2_DATASETS"


def dataset_root() -> str:
    """``$DETECTRON2_DATASETS`` with ``~`` expanded, or ``datasets`` where it is not set."""
    return os.path.expanduser(os.getenv(VARIABLE, "datasets"))


def mapillary_folder(root: str) -> str:
    """Folder of Mapillary Vistas below ``root``: ``mapillary_vistas``, or ``mapillary-vistas``.

    The registrations of Mask2Former say the first, the preparation of its IBS fork the second.
    Here both do where only that one exists.
    """
    usual, other = (os.path.join(root, name) for name in ("mapillary_vistas", "mapillary-vistas"))
    return other if os.path.isdir(other) and not os.path.isdir(usual) else usual


def required_paths(name: str) -> dict[str, str]:
    """Files and folders that reading dataset ``name`` touches, by metadata key.

    A panoptic set's ``json_file`` (instances) is left out: only instance evaluation needs it.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("panoptic_json"):
        keys = ["panoptic_json", "panoptic_root", "image_root", "sem_seg_root"]
    else:
        keys = ["json_file", "image_root", "sem_seg_root", "image_dir", "gt_dir"]
    return {key: metadata.get(key) for key in keys if metadata.get(key)}


def require_dataset_files(name: str) -> None:
    """Checks that the files of a registered dataset are where they are expected.

    Args:
        name: a registered dataset.

    Raises:
        FileNotFoundError: names each missing path, the root in use and the command that prepares
            the set.
    """
    paths = required_paths(name)
    missing = [
        f"  {key}: {os.path.abspath(path) if '://' not in path else path}"
        for key, path in paths.items()
        if not PathManager.exists(path)
    ]
    if missing:
        value = os.getenv(VARIABLE)
        origin = f"{VARIABLE}={value}" if value else f"{VARIABLE} is not set, so ./datasets is used"
        raise FileNotFoundError(
            f'Dataset "{name}" is not where it is expected. Missing:\n'
            + "\n".join(missing)
            + f"\n{origin} (working directory {os.getcwd()}).\n{remedy(name)}"
            f"\nWhat is there instead: python tools/datasets.py check {name}"
        )


def remedy(name: str) -> str:
    """One sentence: how the files of dataset ``name`` come into being."""
    for row in load_table("preparation"):
        if name.startswith(row["prefix"]) and row["contains"] in name:
            return row["remedy"]
    return "See datasets/README.md for the expected layout."
