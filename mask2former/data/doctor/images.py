"""What an image file is like: readable, turned, deep, grey, and its content's hash."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mask2former.data.dataset_mappers.reading import DECODE_FAILURES

_ORIENTATION = 274


@dataclass(frozen=True)
class ImageFacts:
    """Of one file; ``problem`` says why it cannot be used, the rest is unset then.

    Attributes:
        size: width and height as stored.
        shown_size: after the turn that EXIF asks for.
        mode: Pillow's mode: "RGB", "L", "I;16", "CMYK", "RGBA", "P", ...
        content: hash of the decoded pixels' coarse form: equal for the same picture in another
            file format or compression (nearly always), different for different pictures.
    """

    problem: str = ""
    missing: bool = False
    size: tuple[int, int] = (0, 0)
    shown_size: tuple[int, int] = (0, 0)
    turned: bool = False
    mode: str = ""
    content: str = ""


def look_at(file_name: str) -> ImageFacts:
    """Decodes a file completely and says what it is like."""
    try:
        with Image.open(file_name) as image:
            turn = image.getexif().get(_ORIENTATION, 1)
            image.load()
            width, height = image.size
            shown = (height, width) if turn in (5, 6, 7, 8) else (width, height)
            return ImageFacts(
                size=(width, height),
                shown_size=shown,
                turned=turn != 1,
                mode=image.mode,
                content=_content_hash(image),
            )
    except FileNotFoundError:
        return ImageFacts(problem="the file does not exist", missing=True)
    except DECODE_FAILURES as error:
        return ImageFacts(problem=str(error) or type(error).__name__)


def _content_hash(image: Image.Image) -> str:
    """Hash of brightness on a 16x16 grid, in 32 steps, with the aspect ratio.

    Leaked pictures are usually the same file, or saved again; both keep this hash. Flat pictures
    (a grid without contrast) are told apart by their exact pixels.
    """
    small = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=np.int64)
    if np.ptp(small) < 16:
        return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:24]
    ratio = round(8 * image.width / image.height)
    return hashlib.sha256(bytes([ratio % 256, *(small // 8).ravel().tolist()])).hexdigest()[:24]
