"""A list on disk: what an evaluator keeps of thousands of images without keeping it in memory."""

import json
import pickle
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator

from detectron2.utils import comm

# Records are written in blocks of about this many: few enough to weigh nothing (an image has some
# tens of kilobytes of run lengths), enough for one system call.
_BLOCK = 16
_HEADER = struct.Struct("<Q")


class Spool:
    """Records in a temporary file that no other process sees and that vanishes with this one.

    Args:
        folder: where the file lies; default: the system's temporary folder, which may be memory.
    """

    def __init__(self, folder: str | None = None) -> None:
        # Open as long as the spool lives.
        self._file = tempfile.TemporaryFile(prefix="evaluation_", dir=folder)  # noqa: SIM115
        self._buffer: list = []
        self._blocks = 0
        self._length = 0
        self._is_gathered = False

    def extend(self, records: Iterable) -> None:
        """Appends records of plain Python types or arrays."""
        for record in records:
            self._buffer.append(record)
            self._length += 1
            if len(self._buffer) >= _BLOCK:
                self._flush()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator:
        self._flush()
        for block in self._read_blocks():
            yield from pickle.loads(zlib.decompress(block))

    def _flush(self) -> None:
        if self._buffer:
            # Level 1: the run lengths of masks shrink to half, at little cost.
            block = zlib.compress(pickle.dumps(self._buffer, pickle.HIGHEST_PROTOCOL), 1)
            self._append_block(block)
            self._buffer = []

    def _append_block(self, block: bytes) -> None:
        self._file.seek(0, 2)
        self._file.write(_HEADER.pack(len(block)) + block)
        self._blocks += 1

    def _read_blocks(self) -> Iterator[bytes]:
        position = 0
        for _ in range(self._blocks):
            self._file.seek(position)
            (size,) = _HEADER.unpack(self._file.read(_HEADER.size))
            block = self._file.read(size)
            position = self._file.tell()
            yield block

    def gathered(self) -> "Spool | None":
        """All ranks' records on the main process, rank by rank; None on the others.

        Every rank must call it. Blocks travel one by one, so that no process holds them all.
        """
        if comm.get_world_size() == 1:
            return self
        if self._is_gathered:
            return self if comm.is_main_process() else None
        self._is_gathered = True
        self._flush()
        blocks = comm.all_gather(self._blocks)
        for source in range(1, comm.get_world_size()):
            own = self._read_blocks() if comm.get_rank() == source else None
            for _ in range(blocks[source]):
                sent = comm.gather(next(own) if own else None, dst=0)
                if comm.is_main_process():
                    self._append_block(sent[source])
        lengths = comm.gather(self._length, dst=0)
        if not comm.is_main_process():
            return None
        self._length = sum(lengths)
        return self

    def close(self) -> None:
        """Removes the file."""
        self._file.close()


def write_json_list(path: str, entries: Iterable) -> None:
    """Writes what ``json.dump(list(entries))`` would, entry by entry."""
    with open(path, "w") as file:
        file.write("[")
        for i, entry in enumerate(entries):
            file.write((", " if i else "") + json.dumps(entry))
        file.write("]")
