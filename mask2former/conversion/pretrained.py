"""ImageNet backbones of other projects as files that ``MODEL.WEIGHTS`` takes.

What the published ``tools/convert-*-to-d2.py`` share: two paths on the command line, and a pickle
``{"model", "__author__", "matching_heuristics": True}`` out, whose names the checkpointer then
matches by suffix (``layers.0.x`` finds ``backbone.layers.0.x``).
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mask2former.engine.errors import WeightsError

from .reading import read_file

#: Gives the weights as they are to be written, from what the input file holds.
Converter = Callable[[Any, Path], dict[str, Any]]


def write_pickle(weights: dict[str, Any], output: str | Path, author: str) -> None:
    """Writes a detectron2 ``.pkl``; an interrupted run leaves no half file.

    Args:
        weights: name -> tensor or array.
        author: shown when the file is loaded.

    Raises:
        WeightsError: ``output`` does not end in .pkl, by which the checkpointer knows the format,
            or its folder does not exist.
    """
    output = Path(output)
    if output.suffix != ".pkl":
        raise WeightsError(
            f"{output}: the output is a pickle, and is only recognised as one when its name ends "
            f"in .pkl; write {output.with_suffix('.pkl')}"
        )
    if not output.parent.is_dir():
        raise WeightsError(f"{output}: there is no folder {output.parent}")
    data = {"model": weights, "__author__": author, "matching_heuristics": True}
    temporary = output.with_name(f"{output.name}.tmp{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            pickle.dump(data, file, protocol=4)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


def under_model(data: Any, path: Path) -> dict[str, torch.Tensor]:
    """The weights under the key ``model``, unchanged; a ``.safetensors`` file has no such level.

    Raises:
        WeightsError: there is no such key.
    """
    if path.suffix == ".safetensors":
        return data
    if not isinstance(data, dict) or "model" not in data:
        held = ", ".join(map(str, list(data)[:4])) if isinstance(data, dict) else type(data)
        raise WeightsError(
            f"{path}: has no key 'model' (it holds {held}, ...). This tool takes the checkpoints "
            "of the original repository, which keep their weights there."
        )
    return data["model"]


def run_converter(
    convert: Converter, *, author: str, description: str, arguments: list[str] | None = None
) -> int:
    """The whole of a converter script: reads IN, converts, writes OUT, says what happened.

    Args:
        convert: from the content of IN and its path to what is written.
        author: as for :func:`write_pickle`.
        description: the help text; the script's docstring.
        arguments: the command line, ``sys.argv`` by default.

    Returns:
        the exit status: 0, or 2 after an error of the user.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN", type=Path, help=".pth or .safetensors file")
    parser.add_argument("output", metavar="OUT", type=Path, help=".pkl file to write")
    args = parser.parse_args(arguments)
    try:
        weights = convert(read_file(args.input), args.input)
        write_pickle(weights, args.output, author)
    except (WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.output}: {len(weights)} weights written.")
    return 0
