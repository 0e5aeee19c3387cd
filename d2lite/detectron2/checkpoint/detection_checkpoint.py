"""DetectionCheckpointer: safe reading, atomic writing and key matching on fvcore's Checkpointer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import ParseResult, parse_qs, urlparse

import torch
import torch.distributed as dist
from fvcore.common.checkpoint import Checkpointer, _IncompatibleKeys
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2._missing import missing_getattr
from detectron2.checkpoint._safe_load import load_pickle, load_torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

__all__ = ["DetectionCheckpointer"]


class DetectionCheckpointer(Checkpointer):
    """Saves and loads a model and, beside it, anything with a ``state_dict``.

    Differences to fvcore's class:

    * reads ``.pkl`` (detectron2's and Caffe2's), ``.pyth`` (pycls) and everything ``torch.save``
      writes, and never runs anything that a file contains;
    * files made by converters carry ``matching_heuristics``: their keys are matched by suffix;
      ``path?matching_heuristics=True`` asks for it on any other file;
    * a checkpoint appears under its name only when it is complete;
    * with DistributedDataParallel, processes that cannot see the file get the weights from
      rank 0.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            model: unwrapped if it is DistributedDataParallel or DataParallel.
            save_dir: where :meth:`save` writes and ``resume_or_load`` looks.
            save_to_disk: default: on the main process only.
            checkpointables: objects with ``state_dict()`` and ``load_state_dict()``.
        """
        super().__init__(
            model,
            save_dir,
            save_to_disk=comm.is_main_process() if save_to_disk is None else save_to_disk,
            **checkpointables,
        )
        self.path_manager = PathManager
        self._is_ddp = isinstance(model, DistributedDataParallel)
        self._parsed_url_during_load: ParseResult | None = None

    # -- writing ---------------------------------------------------------------------------

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and make ``last_checkpoint`` point to it.

        The file holds ``model``, every checkpointable and ``kwargs``. Both files are written
        under another name first: an interruption leaves the older ones intact.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        for key, obj in self.checkpointables.items():
            data[key] = obj.state_dict()
        data.update(kwargs)

        basename = f"{name}.pth"
        if os.path.basename(basename) != basename:
            raise AssertionError(f"A checkpoint's name must not contain folders: {name!r}")
        save_file = os.path.join(self.save_dir, basename)
        self.logger.info("Saving checkpoint to %s", save_file)
        self._write(save_file, "wb", lambda stream: torch.save(data, stream))
        self.tag_last_checkpoint(basename)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make ``last_checkpoint`` name this file."""
        save_file = os.path.join(self.save_dir, "last_checkpoint")
        self._write(save_file, "w", lambda stream: stream.write(last_filename_basename))

    def _write(self, path: str, mode: str, write: Callable[[IO], Any]) -> None:
        if "://" in path:  # remote storage completes a file when it is closed, if at all
            with self.path_manager.open(path, mode) as stream:
                write(stream)
            return
        self.path_manager.mkdirs(os.path.dirname(path) or ".")
        # not ending in .pth, so that nobody takes a left-over for a checkpoint
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            with open(temporary, mode) as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:  # an interruption too must not leave half a file
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise

    # -- reading ---------------------------------------------------------------------------

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint; see fvcore's ``Checkpointer.load`` for the other arguments.

        Args:
            path: file or address, optionally with ``?matching_heuristics=True``; empty: nothing
                is loaded.

        Returns:
            what the file holds beyond the model and the checkpointables.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: rank 0 of a distributed job does not see the file.
            ValueError: an unknown query, or a damaged file.
            pickle.UnpicklingError: the file contains more than data.
        """
        if not path:
            return super().load(path, *args, **kwargs)

        parsed = urlparse(path)
        if os.path.isfile(path):
            parsed = parsed._replace(query="")  # a question mark in the file's own name
            local_path = path
        else:
            local_path = self.path_manager.get_local_path(parsed._replace(query="").geturl())
        has_file = os.path.isfile(local_path)

        everyone_has_it = True
        if self._is_ddp:
            # Without a shared file system, the file may be on the first machine only.
            seen = comm.all_gather(has_file)
            if not seen[0]:
                raise OSError(f"File {path} not found on main worker.")
            everyone_has_it = all(seen)
            if not everyone_has_it:
                self.logger.warning(
                    "Not all workers can read checkpoint %s. Training may fail to fully resume.",
                    path,
                )
        elif not has_file:
            raise FileNotFoundError(
                f"Checkpoint {path} does not exist"
                + ("" if local_path == path else f" (looked for {local_path})")
                + "; check MODEL.WEIGHTS"
            )

        result: dict[str, Any] = {}
        if has_file:
            self._parsed_url_during_load = parsed
            try:
                result = super().load(local_path, *args, **kwargs)
            finally:
                self._parsed_url_during_load = None
        if self._is_ddp and not everyone_has_it:
            self.logger.info("Broadcasting model states from main worker ...")
            with torch.no_grad():
                for tensor in self.model.state_dict().values():
                    dist.broadcast(tensor, src=0)
        return result

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            with self.path_manager.open(filename, "rb") as stream:
                data = load_pickle(filename, stream)
            if not isinstance(data, dict):
                raise ValueError(f"Checkpoint {filename} holds a {type(data).__name__}, no dict")
            if "model" in data and "__author__" in data:
                self.logger.info("Reading a file from '%s'", data["__author__"])
                return data
            # a Caffe2 / Detectron file
            blobs = data.get("blobs", data)
            blobs = {k: v for k, v in blobs.items() if not k.endswith("_momentum")}
            return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}
        if filename.endswith(".pyth"):
            loaded = load_torch(filename)
            if "model_state" not in loaded:
                raise ValueError(f"{filename}: a pycls checkpoint needs the entry model_state")
            state = {
                name: value
                for name, value in loaded["model_state"].items()
                if not name.endswith("num_batches_tracked")
            }
            return {"model": state, "__author__": "pycls", "matching_heuristics": True}

        loaded = self._torch_load(filename)
        if not isinstance(loaded, dict):
            raise ValueError(f"Checkpoint {filename} holds a {type(loaded).__name__}, no dict")
        if "model" not in loaded:
            loaded = {"model": loaded}
        if self._parsed_url_during_load is not None:
            queries = parse_qs(self._parsed_url_during_load.query)
            if queries.pop("matching_heuristics", ["False"]) == ["True"]:
                loaded["matching_heuristics"] = True
            if queries:
                raise ValueError(
                    f"Unsupported query {sorted(queries)} in "
                    f"{self._parsed_url_during_load.geturl()}: only matching_heuristics is known"
                )
        return loaded

    def _torch_load(self, filename: str) -> Any:
        return load_torch(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        if checkpoint.get("matching_heuristics", False):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            checkpoint["model"] = align_and_update_state_dicts(
                self.model.state_dict(),
                checkpoint["model"],
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
        incompatible = super()._load_model(checkpoint)
        # These come from the config; files hold them or not, and nobody needs to hear of it.
        own_buffers = dict(self.model.named_buffers(recurse=False))
        for name in ("pixel_mean", "pixel_std"):
            if name in own_buffers and name in incompatible.missing_keys:
                incompatible.missing_keys.remove(name)
        for name in list(incompatible.unexpected_keys):
            if "anchor_generator.cell_anchors" in name:
                incompatible.unexpected_keys.remove(name)
        return incompatible


__getattr__ = missing_getattr(__name__)
