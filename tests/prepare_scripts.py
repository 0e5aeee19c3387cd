"""Runs the preparation scripts of the repository in this process."""

import importlib.util
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def run_script(name: str, *arguments: str, folder: str = "datasets") -> int:
    """Exit status of ``<folder>/<name>.py`` with ``arguments``."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(list(arguments))
