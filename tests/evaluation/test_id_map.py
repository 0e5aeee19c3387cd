"""Panoptic PNGs mean the same with and without compiled kernels, whole and broken ones."""

import io
import re
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mask2former.evaluation import id_map
from mask2former.evaluation.id_map import _decode_usual, read_id_map
from mask2former.ops import id_maps

pytestmark = pytest.mark.skipif(not id_maps.applies(), reason="the kernel was not built")


def segments(height: int = 60, width: int = 83) -> np.ndarray:
    """RGB of some areas, on void, with a line of single pixels."""
    rng = np.random.default_rng(0)
    rgb = np.zeros((height, width, 3), np.uint8)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        cv2.circle(
            rgb, (int(x), int(y)), int(rng.integers(1, 20)), rng.integers(0, 256, 3).tolist(), -1
        )
    rgb[height // 2, ::3] = rng.integers(0, 256, (len(rgb[0, ::3]), 3))
    return rgb


def png(rgb: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", **options)
    return file.getvalue()


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A chunk behind the header."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + struct.pack(">I", len(content)) + kind + content + checksum + data[33:]


def remarks() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "an editor")
    info.add_itxt("Title", "a map", zip=True)
    return info


def of_opencv(filters: int) -> bytes:
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, filters]
    return cv2.imencode(".png", segments()[..., ::-1], options)[1].tobytes()


USUAL = {
    "Pillow": png(segments()),
    "not compressed": png(segments(), compress_level=0),
    "optimized": png(segments(), optimize=True),
    "with remarks": png(segments(), pnginfo=remarks(), dpi=(72, 72)),
    "one pixel": png(segments()[:1, :1]),
    "one row": png(segments()[30:31]),
    "one column": png(segments()[:, :1]),
    "OpenCV, no filter": of_opencv(cv2.IMWRITE_PNG_FILTER_NONE),
    "OpenCV, average": of_opencv(cv2.IMWRITE_PNG_FILTER_AVG),
    "OpenCV, all filters": of_opencv(cv2.IMWRITE_PNG_ALL_FILTERS),
    "several parts": png(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)),
}
UNUSUAL = {
    "a transparent colour": png(segments(), transparency=(0, 0, 0)),
    "gamma": with_chunk(png(segments()), b"gAMA", struct.pack(">I", 100_000)),
    "RGBA": png(np.dstack([segments(), segments()[..., :1]])),
    "palette": png(np.asarray(Image.fromarray(segments()).quantize(16).convert("P"))),
    "grey": png(segments()[..., 0]),
    "no PNG": b"no picture",
}


@pytest.mark.parametrize("kind", [*USUAL, *UNUSUAL])
def test_kernels_read_what_is_read_without_them(kind, tmp_path):
    data = (USUAL | UNUSUAL)[kind]
    assert (_decode_usual(data) is None) == (kind in UNUSUAL)
    assert outcome(tmp_path, data, fast=True) == outcome(tmp_path, data, fast=False)


def outcome(folder, data: bytes, fast: bool) -> tuple:
    path = folder / "map.png"
    path.write_bytes(data)
    try:
        ids = read_id_map(str(path), fast)
    except (ValueError, cv2.error, Image.DecompressionBombError) as error:
        return type(error), re.sub("0x[0-9a-f]+", "address", str(error))
    return str(ids.dtype), ids.shape, ids.tobytes()


def test_broken_files_end_as_without_kernels(tmp_path):
    data = png(segments(20, 30))
    broken = [data[:cut] for cut in range(0, len(data), 7)]
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        broken.append(bytes(flipped))
    broken.append(data + b"more")
    for damaged in broken:
        assert outcome(tmp_path, damaged, fast=True) == outcome(tmp_path, damaged, fast=False)


def with_content(rgb: np.ndarray, content: bytes) -> bytes:
    """A PNG of that size and sound checksums around any content."""
    data = png(rgb)
    empty = data[:33] + data[-12:]
    return with_chunk(empty, b"IDAT", content)


def with_dictionary(content: bytes) -> bytes:
    packer = zlib.compressobj(zdict=b"some words")
    return packer.compress(content) + packer.flush()


def test_sound_chunks_around_a_wrong_content_end_as_without_kernels(tmp_path):
    rgb = segments(20, 30)
    rows = np.zeros((20, 91), np.uint8)
    rows[:, 1:] = rgb.reshape(20, 90)
    sound = zlib.compress(rows.tobytes())
    assert _decode_usual(with_content(rgb, sound)) is not None
    rows[7, 0] = 9  # no such filter
    wrong = {
        "filter": zlib.compress(rows.tobytes()),
        "too short": zlib.compress(rows.tobytes()[:-1]),
        "too long": zlib.compress(rows.tobytes() + b"\0"),
        "wrong checksum": sound[:-1] + bytes([sound[-1] ^ 1]),
        "no checksum": sound[:-4],
        "cut": sound[: len(sound) // 2],
        "followed by something": sound + b"\0",
        "wants a dictionary": with_dictionary(rows.tobytes()),
        "nothing": b"",
        "no stream": b"abc" * 30,
    }
    for content in wrong.values():
        data = with_content(rgb, content)
        assert _decode_usual(data) is None
        assert outcome(tmp_path, data, fast=True) == outcome(tmp_path, data, fast=False)


def test_a_header_alone_asks_for_no_memory(monkeypatch):
    def refused(*_):
        raise AssertionError("must not be asked")

    monkeypatch.setattr(id_map, "_decompress", refused)
    data = png(segments(20, 30))
    header = data[12:16] + struct.pack(">II", 40_000, 40_000) + data[24:29]
    huge = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    assert _decode_usual(huge) is None


def test_a_stream_that_never_ends_is_given_up():
    data = with_content(segments(20, 30), zlib.compress(bytes(30_000_000)))
    tracemalloc.start()
    try:
        assert _decode_usual(data) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
