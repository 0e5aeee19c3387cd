"""Checkpoints: written atomically, loaded with a short report of what fitted."""

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pickle import UnpicklingError

import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from .errors import CheckpointError, WeightsError

logger = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """What a weights file gave to a model.

    Attributes:
        matched, missing, mismatched: names of the model's parameters and buffers; mismatched ones
            are in the file with another shape.
        left_over: names in the file that the model does not have.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"  matched     {len(self.matched)}"]
        for title, names in (
            ("missing", self.missing),
            ("left over", self.left_over),
            ("other shape", self.mismatched),
        ):
            lines.append(f"  {title:<11} {len(names)}{_by_part(names)}")
        return "\n".join(lines)


class Checkpointer(DetectionCheckpointer):
    """DetectionCheckpointer with atomic writes, a load report and clear refusals.

    Args:
        strict: also refuse weights of a clearly different architecture, which training may start
            from (fine-tuning), but which evaluation would turn into meaningless numbers.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, strict: bool = False, **kwargs):
        super().__init__(model, save_dir, **kwargs)
        self._strict = strict
        self._source = ""
        self.report: LoadReport | None = None

    def save(self, name: str, **kwargs) -> None:
        """Writes ``<save_dir>/<name>.pth``; a crash leaves the previous file, never half a one.

        Raises:
            CheckpointError: it cannot be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        try:
            self._write(data, path)
            self.tag_last_checkpoint(os.path.basename(path))
        except (OSError, RuntimeError) as error:
            reason = _os_error_behind(error)
            if reason is None:
                raise
            raise CheckpointError(
                f"Cannot write the checkpoint {path}: {reason.strerror or reason}"
                f"{_free_space(self.save_dir)}. Earlier checkpoints are kept: make room (or mend "
                "the permissions) and go on with --resume"
            ) from error

    @staticmethod
    def _write(data: dict, path: str) -> None:
        temporary = f"{path}.tmp{os.getpid()}"
        try:
            with open(temporary, "wb") as file:
                torch.save(data, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = os.path.join(self.save_dir, "last_checkpoint")
        temporary = f"{path}.tmp{os.getpid()}"
        with open(temporary, "w") as file:
            file.write(last_filename_basename)
        os.replace(temporary, path)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """As DetectionCheckpointer.resume_or_load.

        Raises:
            WeightsError: see ``load``; or ``last_checkpoint`` names a file that is gone.
        """
        if resume and comm.is_main_process() and self.has_checkpoint():
            last = self.get_checkpoint_file()
            if not PathManager.isfile(last):
                raise WeightsError(
                    f"--resume: {os.path.join(self.save_dir, 'last_checkpoint')} names "
                    f"{os.path.basename(last)}, which is not there. Write the name of another "
                    "checkpoint into it, or remove it to start anew from MODEL.WEIGHTS"
                )
        return super().resume_or_load(path, resume=resume)

    def load(self, path: str, *args, **kwargs):
        """As DetectionCheckpointer.load.

        Raises:
            WeightsError: the file is missing or unreadable, or (nearly) nothing in it fits.
        """
        self._source = path
        if path and comm.is_main_process():
            check_weights_exist(path)
        try:
            return super().load(path, *args, **kwargs)
        except (EOFError, OSError, RuntimeError, ValueError, KeyError, UnpicklingError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if "Unsupported type found in checkpoint" in reason:
                reason += ". tools/import_weights.py reads what other frameworks write"
            raise WeightsError(f"Cannot load the weights file {path}: {reason}") from error

    def _log_incompatible_keys(self, incompatible) -> None:
        # Called by load with {missing_keys, unexpected_keys, incorrect_shapes}.
        mismatched = [entry[0] for entry in incompatible.incorrect_shapes]
        missing = [k for k in incompatible.missing_keys if k not in set(mismatched)]
        absent = {*missing, *mismatched}
        self.report = LoadReport(
            matched=[k for k in self.model.state_dict() if k not in absent],
            missing=missing,
            mismatched=mismatched,
            left_over=list(incompatible.unexpected_keys),
        )
        logger.info("Loaded %s:\n%s", self._source, self.report)
        for name, shape_file, shape_model in incompatible.incorrect_shapes[:3]:
            logger.info("  %s: %s in the file, %s here", name, shape_file, shape_model)
        self._check(self.report)

    def _check(self, report: LoadReport) -> None:
        parameters = {name for name, _ in self.model.named_parameters()}
        matched = parameters & set(report.matched)
        if not matched:
            raise WeightsError(
                f"{self._source}: none of its {len(report.left_over) + len(report.mismatched)} "
                f"weights fits the model (file: {_first(report.left_over or report.mismatched)}; "
                f"model: {_first(report.missing or report.mismatched)}). Is MODEL.WEIGHTS of "
                "another architecture? An ImageNet backbone needs one of tools/convert-*.py, a "
                "checkpoint of Hugging Face or mmdetection tools/import_weights.py"
            )
        for part in sorted({_part(name) for name in parameters}):
            self._check_part(part, [n for n in parameters if _part(n) == part], report)

    def _check_part(self, part: str, parameters: list[str], report: LoadReport) -> None:
        """Refuses when the file describes another ``part`` (backbone, head) than the model's."""
        unused = [n for n in report.left_over + report.mismatched if _part(n) == part]
        absent = set(report.missing + report.mismatched) & set(parameters)
        # A head may be learned anew; a backbone that does not fit is the wrong file.
        wrong_backbone = part == "backbone" and bool(unused) and len(absent) == len(parameters)
        # A few differing names are a variant; more than a tenth is another network.
        differs = len(absent) + len(unused) > 0.1 * len(parameters)
        in_file = bool(unused) or len(absent) < len(parameters)
        if wrong_backbone or (self._strict and in_file and differs):
            raise WeightsError(
                f"{self._source}: its {part} is of another architecture: {len(absent)} of "
                f"{len(parameters)} parameters of the model's {part} are not in it or have another "
                f"shape, and {len(unused)} of its weights are left over. Give the config that "
                "these weights were trained with, or other MODEL.WEIGHTS."
            )
        if absent and self._strict:
            logger.warning(
                "%s: %d of %d parameters of the model's %s are not in it or have another shape "
                "(%s): evaluation runs with random values there",
                self._source,
                len(absent),
                len(parameters),
                part,
                _first(sorted(absent)),
            )


def check_weights_exist(path: str) -> None:
    """Raises WeightsError when ``path`` (cfg.MODEL.WEIGHTS) names a file that cannot be had."""
    local = path.split("?")[0]
    try:
        if PathManager.isfile(local):
            return
        local = PathManager.get_local_path(local)
    except Exception as error:
        url = local.replace("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/")
        raise WeightsError(
            f"MODEL.WEIGHTS {path}: cannot be fetched ({error or type(error).__name__}). Download "
            f'{url} on a machine that can, and give the file; or MODEL.WEIGHTS "" to start from '
            "random values."
        ) from error
    if not os.path.isfile(local):
        raise WeightsError(
            f"MODEL.WEIGHTS {path}: no such file (looked in {os.getcwd()}). Give a path to a .pth "
            'or .pkl file, or MODEL.WEIGHTS "" to start from random values.'
        )


def _os_error_behind(error: BaseException | None) -> OSError | None:
    """What the system said: torch.save reports a full disk as its own unfinished archive."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _free_space(folder: str) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free there)"
    except OSError:
        return ""


def _part(name: str) -> str:
    return name.split(".")[0]


def _first(names: list[str]) -> str:
    return f"{names[0]}, ..." if names else "nothing"


def _by_part(names: Iterable[str]) -> str:
    """``  (backbone 3, sem_seg_head 2)``: where the names lie, two levels deep, or deeper where
    that says it more exactly (``backbone.layers.*.semantic_layer``)."""
    parts = defaultdict(list)
    for name in names:
        parts[".".join(name.split(".")[:2])].append(name)
    if not parts:
        return ""
    largest = sorted(parts.items(), key=lambda item: -len(item[1]))[:4]
    shown = ", ".join(f"{_common_place(part, under)} {len(under)}" for part, under in largest)
    return f"  ({shown}{', ...' if len(parts) > 4 else ''})"


def _common_place(part: str, names: list[str]) -> str:
    """The module that holds all the names, with ``*`` for positions in lists; at least ``part``."""
    places = [["*" if x.isdecimal() else x for x in n.split(".")[:-1]] for n in names]
    common = [level[0] for level in takewhile(lambda x: len(set(x)) == 1, zip(*places))]
    while common and common[-1] == "*":
        common.pop()
    return max(part, ".".join(common), key=lambda place: place.count("."))
