"""Finding files of data sets, with errors that help."""

import os

from detectron2.utils.file_io import PathManager


def dataset_root() -> str:
    """``$DETECTRON2_DATASETS`` with ``~`` expanded, default ``datasets``."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def require(path: str, what: str, dataset: str | None = None, remedy: str = "") -> str:
    """``path`` itself, if it exists.

    Args:
        path: file or folder.
        what: said of it in the error, e.g. "annotation file".
        dataset: whose it is.
        remedy: one more sentence for the error.

    Raises:
        FileNotFoundError: names the path, the data set and where data sets are looked for.
    """
    if PathManager.exists(path):
        return path
    of = f" of dataset '{dataset}'" if dataset else ""
    root = os.getenv("DETECTRON2_DATASETS")
    where = f"which is '{root}'" if root else "which is not set (so ./datasets is used)"
    raise FileNotFoundError(
        f"The {what} '{path}'{of} does not exist. Built-in datasets are looked for under "
        f"$DETECTRON2_DATASETS, {where}; it is read when detectron2.data is imported.{remedy}"
    )
