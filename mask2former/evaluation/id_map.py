"""Reads panoptic PNGs: segment ids as colours, ``R + 256 G + 256^2 B``."""

import io
import struct

import cv2
import numpy as np
from PIL import Image
from zlib_ng import zlib_ng

from mask2former.ops import id_maps

from .errors import EvaluationError

# A PNG's signature, and depth and colour type (at bytes 24 and 25) of 8 bit RGB.
_PNG, _RGB8 = b"\x89PNG\r\n\x1a\n", b"\x08\x02"
_CHUNK, _HEADER = struct.Struct(">I4s"), struct.Struct(">II5B")
# The most that zlib's compression reaches; a header that says more is no reason to ask for memory.
_MOST_FOLD = 1032
# Say nothing about pixels.
_REMARKS = {b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME"}


def read_id_map(path: str, fast: bool = True) -> np.ndarray:
    """Reads a panoptic PNG.

    Args:
        fast: read the usual kind of file, if it is sound, with zlib-ng and a compiled kernel.

    Returns:
        uint32 ``[H, W]`` segment ids, ``R + 256 G + 256^2 B``; 0 is void.

    Raises:
        EvaluationError: the file is missing or cannot be decoded; the message names it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
        ids = _decode_usual(data) if fast and id_maps.applies() else None
        return _decode_any(data) if ids is None else ids
    except (OSError, SyntaxError, EOFError) as error:
        raise EvaluationError(f"Cannot read the panoptic PNG {path}: {error}") from error


def _decode_any(data: bytes) -> np.ndarray:
    if data.startswith(_PNG) and data[24:26] == _RGB8:
        # OpenCV is faster. What it cannot decode (None), as other kinds of files, is Pillow's.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if bgr is not None:
            rgba = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGBA)
            return rgba.view("<u4")[..., 0] & 0xFFFFFF
    with Image.open(io.BytesIO(data)) as image:
        # Four bytes a pixel can be read as one little-endian integer, R lowest.
        rgbx = image.convert("RGB").tobytes("raw", "RGBX")
        return np.frombuffer(rgbx, "<u4").reshape(image.height, image.width) & 0xFFFFFF


def _decode_usual(data: bytes) -> np.ndarray | None:
    """PNG of 8 bit RGB, not interlaced, every checksum right; None for anything else.

    Chunks, compression and filters are those of the PNG specification, sections 5, 9 and 10.
    """
    if not data.startswith(_PNG) or data[24:26] != _RGB8:
        return None
    view, position, compressed = memoryview(data), len(_PNG), []
    kind, header = b"", b""
    while kind != b"IEND":
        if position + _CHUNK.size + 4 > len(data):
            return None
        length, kind = _CHUNK.unpack_from(data, position)
        begin, end = position + _CHUNK.size, position + _CHUNK.size + length
        if zlib_ng.crc32(view[begin - 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            return None
        if position == len(_PNG):
            if kind != b"IHDR" or length != _HEADER.size:
                return None
            header = view[begin:end]
        elif kind == b"IDAT":
            compressed.append(view[begin:end])
        elif kind not in _REMARKS and kind != b"IEND":
            return None
        position = end + 4
    width, height, *settings = _HEADER.unpack(header)
    if settings != [8, 2, 0, 0, 0] or not width or not height:
        return None
    size = height * (1 + 3 * width)
    if size > _MOST_FOLD * len(data):
        return None
    rows = _decompress(b"".join(compressed), size)
    return None if rows is None else id_maps.undo_filters(rows, height, width)


def _decompress(stream: bytes, size: int) -> np.ndarray | None:
    """uint8 ``[size]``; None if the zlib stream is damaged, of another size or not all there is."""
    unpacker = zlib_ng.decompressobj()
    try:
        # One byte more than wanted tells that it is too long, whatever follows.
        content = unpacker.decompress(stream, size + 1)
    except zlib_ng.error:
        return None
    if len(content) != size or not unpacker.eof or unpacker.unused_data:
        return None
    return np.frombuffer(content, np.uint8)
