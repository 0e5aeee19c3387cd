"""Reads images and ground-truth PNGs; a file that cannot be decoded is named."""

import struct
import zlib

import numpy as np
from PIL import Image

from detectron2.data import detection_utils as utils

# What Pillow raises on broken files: OSError (truncated, unidentified), SyntaxError (bad PNG
# chunks), the others from damaged compressed streams and headers.
DECODE_FAILURES = (
    OSError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


# Formats that hold one channel of more than 8 bits. The data sets' JPEGs are not looked at.
_DEEP_SUFFIXES = (".jp2", ".pgm", ".png", ".ppm", ".tif", ".tiff")


def depth_warning(file_name: str) -> str:
    """What is lost of a grey image of more than 8 bits; "" of any other file.

    Pillow, and with it detectron2's ``read_image``, cuts values above 255 off in training and in
    prediction alike. (Colour images of 16 bits are scaled.) Only the file's head is read.
    """
    if not file_name.lower().endswith(_DEEP_SUFFIXES):
        return ""
    try:
        with Image.open(file_name) as image:
            mode = image.mode
    except (*DECODE_FAILURES, ValueError):
        return ""  # who reads the file says so
    if not is_deep(mode):
        return ""
    return (
        f"{file_name} has more than 8 bits a pixel ({mode}): everything above 255 is cut off to "
        "white; convert such images to 8 bits, with one scaling for training and prediction"
    )


def is_deep(mode: str) -> bool:
    """Whether values of Pillow's mode are cut off when it is converted to 8 bits."""
    return mode.startswith(("I", "F"))


class ImageDecodeError(RuntimeError):
    """An image file is missing or broken; the message names it.

    Attributes:
        file_name: the file, or None where the error crossed a process boundary.
    """

    def __init__(self, message: str, file_name: str | None = None) -> None:
        super().__init__(message)
        self.file_name = file_name

    def __reduce__(self):
        return type(self), (self.args[0], self.file_name)


def read_image(file_name: str, image_format: str | None = None) -> np.ndarray:
    """``detectron2.data.detection_utils.read_image`` whose failures name the file.

    Args:
        file_name: path that detectron2's PathManager can open.
        image_format: "RGB", "BGR", "L", ...; None keeps the stored mode (palette indices and
            16-bit values survive).

    Raises:
        ImageDecodeError: the file is missing or cannot be decoded.
    """
    try:
        return utils.read_image(file_name, format=image_format)
    except DECODE_FAILURES as error:
        named = file_name in str(error)  # some providers of detectron2 name the file themselves
        message = str(error) if named else f"Cannot decode {file_name}: {error}"
        raise ImageDecodeError(message, file_name) from error


def read_label_map(file_name: str, shape: tuple[int, int]) -> np.ndarray:
    """Reads a label map of the image's size; uint8, uint16 or int32 [H, W] as stored.

    Raises:
        ImageDecodeError: as `read_image`.
        ValueError: the map has channels, or another size than the image.
    """
    labels = read_image(file_name)
    if labels.ndim != 2:
        raise ValueError(
            f"{file_name} has {labels.shape[-1]} channels; a label map needs one value a pixel "
            "(8-bit, 16-bit or palette)"
        )
    _require_shape(file_name, labels, shape)
    if labels.dtype == bool:  # 1-bit PNG
        labels = labels.astype(np.uint8)
    return labels


def read_panoptic_ids(file_name: str, shape: tuple[int, int]) -> np.ndarray:
    """Reads an RGB-coded panoptic map; int32 [H, W], id = R + 256 G + 65536 B.

    Raises:
        as `read_label_map`.
    """
    rgb = read_image(file_name, "RGB")
    _require_shape(file_name, rgb, shape)
    ids = rgb[..., 0].astype(np.int32)
    ids |= rgb[..., 1].astype(np.int32) << 8
    ids |= rgb[..., 2].astype(np.int32) << 16
    return ids


def _require_shape(file_name: str, labels: np.ndarray, shape: tuple[int, int]) -> None:
    if labels.shape[:2] != tuple(shape):
        raise ValueError(
            f"{file_name} is {labels.shape[1]}x{labels.shape[0]} but its image is "
            f"{shape[1]}x{shape[0]} (width x height)"
        )
