"""The format "CVAT for images 1.1": mask coding and streaming XML."""

from .reading import CvatError, Shape, iterate_images, read_labels
from .rle import CvatMask, decode_mask, encode_mask

__all__ = [
    "CvatError",
    "CvatMask",
    "Shape",
    "decode_mask",
    "encode_mask",
    "iterate_images",
    "read_labels",
]
