"""The format "CVAT for images 1.1": mask coding and streaming XML."""

from .labels import read_label_attributes, read_labels
from .reading import CvatError, Shape, iterate_images
from .rle import CvatMask, decode_mask, encode_mask

__all__ = [
    "CvatError",
    "CvatMask",
    "Shape",
    "decode_mask",
    "encode_mask",
    "iterate_images",
    "read_label_attributes",
    "read_labels",
]
