"""Work on many files in several processes, with a progress bar, taken up where it stopped."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from .command import Options
from .errors import PreparationError

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_through(
    function: Callable[[Item], Result], items: Sequence[Item], options: Options, name: str
) -> Iterator[Result]:
    """Results of ``function`` in the order of ``items``, as they come.

    Args:
        function: importable, so that other processes can run it.
        items: one each call.
        options: number of processes, and whether there is a bar.
        name: of the bar.

    Raises:
        PreparationError: a process was killed.
    """
    with tqdm(total=len(items), desc=name, unit="img", disable=not options.progress) as bar:
        for result in _results(function, items, options.workers):
            bar.update()
            yield result


def _results(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    # Small chunks: an interrupted run loses little, and the bar moves.
    chunk = max(1, min(8, len(items) // (4 * workers)))
    executor = ProcessPoolExecutor(workers, initializer=_ignore_interrupts)
    try:
        yield from executor.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise PreparationError(
            "a worker process was killed, most likely for want of memory; run again with fewer "
            f"--workers (these were {workers})"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the parent, which ends the workers after the file at hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Journal:
    """Results that a later summary file needs, kept until it is written.

    One JSON line a result, in a hidden file beside the summary. Settings that would give other
    results make an old journal worthless.
    """

    def __init__(self, summary: Path, settings: Any = None, *, discard: bool = False) -> None:
        """Opens the journal of ``summary`` and reads what an interrupted run left in it.

        Args:
            summary: the file that is written at the end.
            settings: plain JSON; what the results depend on.
            discard: starts anew.
        """
        path = _path_of(summary)
        head = json.dumps(settings)
        lines = [] if discard or not path.exists() else path.read_text().split("\n")
        # What follows the last line break is a line that was being written.
        lines = lines[:-1]
        if not lines or lines[0] != head:
            lines = [head]
        self.known: dict[str, Any] = dict(json.loads(line) for line in lines[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - see close
        self._file.write("".join(line + "\n" for line in lines))
        self._file.flush()

    def add(self, key: str, result: Any) -> None:
        """Keeps a result, on disk before the next one is worked on."""
        self.known[key] = result
        self._file.write(json.dumps([key, result]) + "\n")
        self._file.flush()

    def close(self) -> None:
        """No more results; what there is stays for the next run."""
        self._file.close()

    @staticmethod
    def remove(summary: Path) -> None:
        """The summary is written: its journal has done its work."""
        _path_of(summary).unlink(missing_ok=True)


def _path_of(summary: Path) -> Path:
    return summary.with_name(f".{summary.name}.journal")


def collect(
    function: Callable[[Item], tuple[str, Any]],
    items: dict[str, Item],
    options: Options,
    summary: Path,
    *,
    settings: Any = None,
    is_there: Callable[[str], bool] = lambda key: True,
) -> list[Any]:
    """Results for all ``items`` in their order; those of an interrupted run are not made again.

    The journal stays until `Journal.remove` is called for ``summary``.

    Args:
        function: gives the item's key and its result (plain JSON).
        items: by key.
        options: see `work_through`.
        summary: the file that the results go into.
        settings: see `Journal`.
        is_there: whether the files that belong to a key exist.
    """
    journal = Journal(summary, settings, discard=options.overwrite)
    todo = [item for key, item in items.items() if key not in journal.known or not is_there(key)]
    kept = len(items) - len(todo)
    if kept:
        options.say(f"{summary.name}: going on after {kept} of {len(items)} images.")
    try:
        for key, result in work_through(function, todo, options, summary.stem):
            journal.add(key, result)
    finally:
        journal.close()
    return [journal.known[key] for key in items]
