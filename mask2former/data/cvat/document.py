"""Edits CVAT XML without touching a byte that is not meant: comments, unknown elements, attribute
order, white space and encodings of characters all stay as the file has them.

The file is cut at its image elements while it streams by; the pieces, put together again, are the
file. An image's piece is edited by removing the bytes of some of its shapes and inserting new ones
before its end. A tree of the whole document is never built, so 100,000 images need no more memory
than one.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from .reading import SHAPES, CvatError, CvatImage, Shape, image_of

_CHUNK = 1 << 18
# A start tag: attribute values may contain ">".
_START_TAG = re.compile(rb"<[^>\"']*(?:\"[^\"]*\"[^>\"']*|'[^']*'[^>\"']*)*>")


@dataclass(frozen=True)
class Piece:
    """Bytes of the file; an image element (without what surrounds it) or anything else."""

    data: bytes
    is_image: bool


def split_document(path: str) -> Iterator[Piece]:
    """Cuts a CVAT file at its image elements; joined, the pieces are the file.

    Raises:
        CvatError: the file is not well-formed, declares entities, is not UTF-8, or its root is not
            ``annotations``.
        FileNotFoundError: there is no such file.
    """
    with open(path, "rb") as file:
        splitter = _Splitter(path)
        while data := file.read(_CHUNK):
            yield from splitter.feed(data)
        yield from splitter.close()


class _Splitter:
    """Follows the file with expat and cuts the bytes where image elements begin and end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._buffer = b""
        self._offset = 0  # of the buffer's first byte in the file
        self._seen = 0  # file offset of the last tag expat reported
        self._depth = 0
        self._begun = False
        self._cuts: list[int] = []  # file offsets where images begin and end, in turn
        self._parser = parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.EntityDeclHandler = self._entity
        parser.XmlDeclHandler = self._declaration

    def feed(self, data: bytes) -> Iterator[Piece]:
        self._buffer += data
        self._parse(data, final=False)
        yield from self._pieces(final=False)

    def close(self) -> Iterator[Piece]:
        self._parse(b"", final=True)
        yield from self._pieces(final=True)

    def _parse(self, data: bytes, *, final: bool) -> None:
        if not self._begun and data:
            self._begun = True
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise CvatError(f"{self._path} is encoded as UTF-16; CVAT writes UTF-8")
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            raise CvatError(f"{self._path} is no readable XML: {error}") from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth == 0 and name != "annotations":
            raise CvatError(
                f"{self._path} is no CVAT annotation file: its root is <{name}>, not <annotations>;"
                ' export the task as "CVAT for images 1.1"'
            )
        self._depth += 1
        self._seen = self._parser.CurrentByteIndex
        if self._depth == 2 and name == "image":
            self._cuts.append(self._seen)

    def _end(self, name: str) -> None:
        self._seen = self._parser.CurrentByteIndex
        if self._depth == 2 and name == "image":
            # Expat points at "</image" or, for "<image .../>", behind it.
            self._cuts.append(self._seen)
        self._depth -= 1

    def _entity(self, *_: object) -> None:
        raise CvatError(f"{self._path} declares entities, which CVAT never does; not read")

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding and encoding.lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
            raise CvatError(f"{self._path} is encoded as {encoding}; CVAT writes UTF-8")

    def _pieces(self, *, final: bool) -> Iterator[Piece]:
        while len(self._cuts) >= 2:
            start, end = (cut - self._offset for cut in self._cuts[:2])
            if self._buffer.startswith(b"</image", end):
                close = self._buffer.find(b">", end)
                if close < 0 and not final:
                    return  # the end tag continues in the next chunk
                end = close + 1
            del self._cuts[:2]
            if start:
                yield Piece(self._buffer[:start], is_image=False)
            yield Piece(self._buffer[start:end], is_image=True)
            self._buffer = self._buffer[end:]
            self._offset += end
        if final:
            if self._buffer:
                yield Piece(self._buffer, is_image=False)
        elif not self._cuts:
            # Expat may hold tokens back: only what lies before its last event is done with.
            ready = self._seen - self._offset
            if ready > 0:
                yield Piece(self._buffer[:ready], is_image=False)
                self._buffer = self._buffer[ready:]
                self._offset += ready


@dataclass(frozen=True)
class NewShape:
    """A shape to be written: element name, XML attributes in order, ``attribute`` children."""

    kind: str
    attributes: dict[str, str]
    values: dict[str, str]

    def render(self, indent: str) -> bytes:
        """The element's bytes; children are indented two spaces further."""
        head = "".join(f" {key}={quoteattr(value)}" for key, value in self.attributes.items())
        body = "".join(
            f"\n{indent}  <attribute name={quoteattr(key)}>{escape(value)}</attribute>"
            for key, value in self.values.items()
        )
        return f"<{self.kind}{head}>{body}\n{indent}</{self.kind}>".encode()


def read_image(piece: bytes) -> CvatImage:
    """Parses the piece of an image; what it lacks is empty, see `CvatImage`."""
    # The file was found well-formed as a whole; a piece may use prefixes that its root declares.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True, recover=True)
    return image_of(etree.fromstring(piece, parser))


def edit_image(
    piece: bytes,
    *,
    remove: Callable[[int, Shape], bool] = lambda index, shape: False,
    add: Iterable[NewShape] = (),
) -> bytes:
    """The piece without the shapes that ``remove`` chooses, and with ``add`` at its end.

    Args:
        piece: an image element.
        remove: called with every shape and its number among the image's shapes.
        add: shapes to write, in order.

    Returns:
        the edited bytes; the same bytes when nothing is removed or added.
    """
    image = read_image(piece)
    spans = _shape_spans(piece)
    doomed = [span for i, (span, shape) in enumerate(zip(spans, image.shapes)) if remove(i, shape)]
    new = list(add)
    if not doomed and not new:
        return piece
    kept, position = [], 0
    for start, end in doomed:
        # The white space before a removed shape goes with it.
        while start > position and piece[start - 1 : start] in (b" ", b"\t", b"\n", b"\r"):
            start -= 1
        kept.append(piece[position:start])
        position = end
    edited = b"".join(kept) + piece[position:]
    return _append(edited, new) if new else edited


def _append(piece: bytes, new: list[NewShape]) -> bytes:
    inner = _indentation(piece)
    rendered = b"".join(b"\n" + inner.encode() + shape.render(inner) for shape in new)
    outer = inner[: max(len(inner) - 2, 0)].encode()
    if piece.endswith(b"/>"):
        return piece[:-2].rstrip() + b">" + rendered + b"\n" + outer + b"</image>"
    close = piece.rindex(b"</image")
    return piece[:close].rstrip() + rendered + b"\n" + outer + piece[close:]


def _indentation(piece: bytes) -> str:
    """White space before the first child; four spaces, as CVAT writes, where there is none."""
    found = re.match(rb"\s*\n([ \t]+)<(?!/)", piece[_START_TAG.match(piece).end() :])
    return found.group(1).decode() if found else "    "


def _shape_spans(piece: bytes) -> list[tuple[int, int]]:
    """Where the image's shapes begin and end in the piece."""
    spans: list[list[int]] = []
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth == 2 and name in SHAPES:
            spans.append([parser.CurrentByteIndex, -1])

    def end(name: str) -> None:
        nonlocal depth
        if depth == 2 and name in SHAPES:
            spans[-1][1] = parser.CurrentByteIndex
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(piece, True)
    return [(begin, _element_end(piece, begin, close)) for begin, close in spans]


def _element_end(piece: bytes, begin: int, close: int) -> int:
    """End of an element whose end event is at ``close`` (see `_Splitter._end`)."""
    start_tag = _START_TAG.match(piece, begin)
    if start_tag.group().endswith(b"/>"):
        return start_tag.end()
    return piece.index(b">", close) + 1
