"""Reads weights files of any of the formats in use, without running anything they contain.

A pickle is a program. Tensors, arrays and plain containers are rebuilt; every other object that a
training checkpoint may hold (optimizer, config, log history of another framework) is replaced by
an inert placeholder whose class is never imported.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask2former.engine.errors import WeightsError

# Where frameworks put the weights in a file: detectron2, Swin and DiNAT; mmdetection; DeiT-like.
_CONTAINERS = ("model", "state_dict", "model_state_dict", "module")
# In a folder, in order of preference.
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_file(path: str | Path) -> Any:
    """What a ``.safetensors``, ``.pkl`` or torch file (any other ending), or a folder, holds.

    Args:
        path: a file, or a folder as ``save_pretrained`` of transformers writes it (shards too).

    Raises:
        WeightsError: there is no such file, or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file (looked in {Path.cwd()})")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.name.endswith(".index.json"):
            return _read_shards(path)
        if path.suffix == ".pkl":
            with open(path, "rb") as stream:
                return _Unpickler(stream, encoding="latin1").load()
        return _read_torch(path)
    except WeightsError:
        raise
    except Exception as error:  # damaged input breaks off in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{path}: damaged, or no weights file ({reason})") from error


def weights_in(data: Any, path: str | Path = "the file") -> dict[str, torch.Tensor]:
    """The named tensors in what :func:`read_file` returned.

    Takes them out of ``model``, ``state_dict``, ..., strips ``module.`` (DataParallel), turns
    arrays into tensors and leaves everything else out.

    Raises:
        WeightsError: there are none.
    """
    while isinstance(data, Mapping):
        inner = next((data[k] for k in _CONTAINERS if isinstance(data.get(k), Mapping)), None)
        if inner is None:
            break
        data = inner
    found = {}
    for name, value in data.items() if isinstance(data, Mapping) else ():
        if isinstance(value, np.ndarray) and value.dtype != object:
            value = torch.from_numpy(np.array(value))
        if isinstance(value, torch.Tensor):
            found[str(name)] = value.detach()
    if not found:
        raise WeightsError(f"{path}: holds no named tensors")
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return found


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """``weights_in(read_file(path))``."""
    return weights_in(read_file(path), path)


def _read_folder(folder: Path) -> dict[str, torch.Tensor]:
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return read_file(folder / name)
    raise WeightsError(f"{folder}: none of {', '.join(_FOLDER_FILES)} is in this folder")


def _read_shards(index: Path) -> dict[str, torch.Tensor]:
    files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    merged: dict[str, torch.Tensor] = {}
    for name in files:
        if Path(name).name != name:
            raise WeightsError(f"{index}: names the shard {name!r} outside its folder")
        merged |= read_file(index.parent / name)
    return merged


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Something beyond tensors is in it: read it once more, with placeholders for that.
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)


class _Placeholder:
    """Stands for an object of a class that is not loaded. Swallows whatever the pickle does."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _Placeholder:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def _load_storage(data: bytes) -> Any:
    # How tensors lie in a plain pickle; torch's own function of this name trusts the bytes.
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # how protocol 2 writes bytes


def _known_globals() -> dict[tuple[str, str], Any]:
    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): lambda *args: collections.defaultdict(),
        ("builtins", "set"): set,
        ("builtins", "slice"): slice,
        ("_codecs", "encode"): _latin1,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("torch.storage", "_load_from_bytes"): _load_storage,
        ("torch", "Size"): torch.Size,
        ("torch", "device"): torch.device,
    }
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        known["torch._utils", name] = getattr(torch._utils, name)
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype) or name.endswith("Storage"):
            known["torch", name] = value
    array = np.zeros(1)
    for core in ("numpy.core", "numpy._core"):  # renamed in numpy 2
        known[f"{core}.multiarray", "_reconstruct"] = array.__reduce__()[0]
        known[f"{core}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
        known[f"{core}.numeric", "_frombuffer"] = array.__reduce_ex__(5)[0]
    return known


_KNOWN = _known_globals()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        known = _KNOWN.get((module, name))
        if known is None and module == "numpy.dtypes" and name in np.dtypes.__all__:
            known = getattr(np.dtypes, name)
        return _Placeholder if known is None else known


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


# torch.load asks for a module that looks like pickle.
_PICKLE = types.SimpleNamespace(
    Unpickler=_Unpickler, load=_load, UnpicklingError=pickle.UnpicklingError, __name__="pickle"
)
