"""Reading images as arrays; ``detectron2.data.detection_utils`` exports what is public."""

import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps

from detectron2.utils.file_io import PathManager

# ITU-R BT.601 in the analogue scaling, RGB in 0..1 -> Y in 0..1, U and V around 0.
_RGB_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
)
_YUV_TO_RGB = np.array([[1.0, 0.0, 1.13983], [1.0, -0.39465, -0.58060], [1.0, 2.03211, 0.0]])

_EXIF_ORIENTATION = 0x0112

# What Pillow's decoders raise on damaged files (its PNG reader uses SyntaxError).
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class ImageDecodeError(OSError):
    """A file exists but is no readable image; the message names it, the cause is chained."""


class SizeMismatchError(ValueError):
    """The stored image has another size than its record says."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image, turned upright by its EXIF orientation.

    Args:
        file_name: path, or anything PathManager opens.
        format: a PIL mode ("RGB", "L", ...), "BGR" or "YUV-BT.601"; None keeps the stored mode,
            so that palette images give indices and 16-bit images uint16.

    Returns:
        uint8 [H, W, 3] for "RGB" and "BGR", uint8 [H, W, 1] for "L", float [H, W, 3] for
        "YUV-BT.601"; otherwise as stored, often without a channel axis. May be read-only, or have
        negative strides.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be decoded; names the file, the decoder's error is chained.
        ValueError: unknown ``format``.
    """
    with PathManager.open(file_name, "rb") as f:
        try:
            image = Image.open(f)
            image.load()
            image = _upright(image)
        except _DECODE_ERRORS as error:
            raise ImageDecodeError(
                f"Cannot decode image '{file_name}': {type(error).__name__}: {error}"
            ) from error
    return convert_PIL_to_numpy(image, format)


def _upright(image: Image.Image) -> Image.Image:
    """Rotate and flip by the EXIF orientation (values 2..8), if there is one."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except (SyntaxError, ValueError, struct.error, EOFError, TypeError, KeyError):
        # Broken EXIF data do not make the pixels unreadable; nor do they turn them.
        return image
    return image if orientation in (None, 1) else ImageOps.exif_transpose(image)


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """PIL image -> array in ``format``, see :func:`read_image`."""
    if format is not None:
        mode = "RGB" if format in ("BGR", "YUV-BT.601") else format
        if image.mode != mode:
            image = image.convert(mode)
    array = np.asarray(image)
    if format == "L":
        return array[:, :, None]
    if format == "BGR":
        return array[:, :, ::-1]
    if format == "YUV-BT.601":
        return np.dot(array / 255.0, _RGB_TO_YUV.T)
    return array


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """What :func:`read_image` returned in ``format``, as RGB for display.

    Args:
        image: [H, W, C], array or tensor.
        format: as in :func:`read_image`, not None.

    Returns:
        uint8 [H, W, 3].
    """
    if isinstance(image, torch.Tensor):
        image = image.cpu().numpy()
    if format == "BGR":
        return image[:, :, [2, 1, 0]]
    if format == "YUV-BT.601":
        # Back to 0..255, clipped: rounding may leave the range.
        return np.clip(np.dot(image, _YUV_TO_RGB.T) * 255.0, 0, 255).astype(np.uint8)
    if format == "L":
        return np.repeat(image[:, :, :1], 3, axis=2).astype(np.uint8)
    image = image.astype(np.uint8)
    return image if format == "RGB" else np.asarray(Image.fromarray(image).convert("RGB"))


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Compare the image with ``width`` and ``height`` of its record, or fill them in.

    Args:
        dataset_dict: record; changed in place where it has no size.
        image: [H, W, ...].

    Raises:
        SizeMismatchError: they differ; names the file.
    """
    h, w = image.shape[:2]
    expected = (dataset_dict.get("width", w), dataset_dict.get("height", h))
    if expected != (w, h):
        name = f" '{dataset_dict['file_name']}'" if "file_name" in dataset_dict else ""
        raise SizeMismatchError(
            f"Mismatched image shape{name}: got {w}x{h} (width x height), the record says "
            f"{expected[0]}x{expected[1]}. If the file is upright in a viewer but not here, check "
            "its EXIF orientation."
        )
    dataset_dict.setdefault("width", w)
    dataset_dict.setdefault("height", h)
