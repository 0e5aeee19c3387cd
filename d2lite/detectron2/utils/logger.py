"""Loggers with colour on the console and a file beside it, and rate-limited messages."""

import functools
import logging
import os
import sys
import time
from collections import Counter
from typing import IO, Any

from tabulate import tabulate
from termcolor import colored

from detectron2._missing import missing_getattr
from detectron2.utils.file_io import PathManager

__all__ = [
    "create_small_table",
    "log_every_n",
    "log_every_n_seconds",
    "log_first_n",
    "setup_logger",
]

# Buffer of log files on remote storage, in bytes; local ones are written line by line.
D2_LOG_BUFFER_SIZE_KEY = "D2_LOG_BUFFER_SIZE"
DEFAULT_LOG_BUFFER_SIZE = 1024 * 1024

_DATE_FORMAT = "%m/%d %H:%M:%S"


class _ConsoleFormatter(logging.Formatter):
    """Shortens the logger's root name; on a colour console, paints WARNING and worse."""

    def __init__(self, *args: Any, root_name: str, abbrev_name: str, color: bool, **kw: Any):
        super().__init__(*args, **kw)
        self._root_name = root_name
        self._abbrev_name = abbrev_name
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:
        name = record.name
        if name == self._root_name or name.startswith(f"{self._root_name}."):
            rest = name[len(self._root_name) :]
            record.name = (self._abbrev_name + rest).lstrip(".")
        text = super().formatMessage(record)
        record.name = name  # other handlers see the record too
        if not self._color or record.levelno < logging.WARNING:
            return text
        if record.levelno == logging.WARNING:
            prefix = colored("WARNING", "red", attrs=["blink"])
        else:
            prefix = colored("ERROR", "red", attrs=["blink", "underline"])
        return f"{prefix} {text}"


@functools.lru_cache  # a second identical call must not add handlers
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Give the logger ``name`` a console handler (rank 0) and a file handler; level DEBUG.

    Args:
        output: a folder (then ``log.txt`` in it) or a file ending in ``.txt`` or ``.log``; other
            ranks than 0 append ``.rank<k>``. None: no file.
        distributed_rank: only rank 0 writes to stdout.
        color: paint the console lines.
        abbrev_name: printed instead of ``name`` on the console; default: "d2" for "detectron2".
        enable_propagation: hand records on to the parent loggers.
        configure_stdout: False leaves the console alone.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name

    if configure_stdout and distributed_rank == 0:
        layout = "[%(asctime)s %(name)s]: "
        console = logging.StreamHandler(stream=sys.stdout)
        console.setLevel(logging.DEBUG)
        console.setFormatter(
            _ConsoleFormatter(
                (colored(layout, "green") if color else layout) + "%(message)s",
                datefmt=_DATE_FORMAT,
                root_name=name,
                abbrev_name=str(abbrev_name),
                color=color,
            )
        )
        logger.addHandler(console)

    if output is not None:
        filename = output
        if not output.endswith((".txt", ".log")):
            filename = os.path.join(output, "log.txt")
        if distributed_rank > 0:
            filename += f".rank{distributed_rank}"
        PathManager.mkdirs(os.path.dirname(filename) or ".")
        file_handler = logging.StreamHandler(_cached_log_stream(filename))
        file_handler.setLevel(logging.DEBUG)
        file_handler.setFormatter(
            logging.Formatter(
                "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt=_DATE_FORMAT
            )
        )
        logger.addHandler(file_handler)
    return logger


@functools.cache  # two loggers writing to the same file share one stream
def _cached_log_stream(filename: str) -> IO[str]:
    remote = "://" in filename
    size = int(os.environ.get(D2_LOG_BUFFER_SIZE_KEY, DEFAULT_LOG_BUFFER_SIZE)) if remote else 1
    return PathManager.open(filename, "a", buffering=size)


_LOG_COUNTER: Counter = Counter()
_LOG_TIMER: dict[Any, float] = {}


def _caller() -> tuple[str, tuple[str, int, str]]:
    """Module name and place of the code that called into this module."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "__main__")
    code = frame.f_code
    return ("detectron2" if module == "__main__" else module), (
        code.co_filename,
        frame.f_lineno,
        code.co_name,
    )


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log only the first ``n`` times.

    Args:
        lvl: logging level.
        name: logger; default: that of the caller's module.
        key: what counts as the same: "caller" (the line of code), "message", or both in a tuple.
    """
    if isinstance(key, str):
        key = (key,)
    if not key or set(key) - {"caller", "message"}:
        raise ValueError(f"key must be 'caller', 'message' or a tuple of them, not {key!r}")
    module, place = _caller()
    identity: tuple[Any, ...] = ()
    if "caller" in key:
        identity += place
    if "message" in key:
        identity += (msg,)
    _LOG_COUNTER[identity] += 1
    if _LOG_COUNTER[identity] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log on the first and then on every ``n``-th call from the same line of code."""
    module, place = _caller()
    _LOG_COUNTER[place] += 1
    if n == 1 or _LOG_COUNTER[place] % n == 1:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n_seconds(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log at most once in ``n`` seconds from the same line of code."""
    module, place = _caller()
    last = _LOG_TIMER.get(place)
    now = time.monotonic()
    if last is None or now - last >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _LOG_TIMER[place] = now


def create_small_table(small_dict: dict[str, Any]) -> str:
    """A one-row pipe table of a few named numbers (three decimals)."""
    return tabulate(
        [tuple(small_dict.values())],
        headers=list(small_dict.keys()),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )


__getattr__ = missing_getattr(__name__)
