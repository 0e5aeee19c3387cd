"""Reads "CVAT for images 1.1" XML as a stream: one image in memory at a time.

Task, job and project exports have the same image elements; a project's carry ``subset`` and
``task_id`` besides. Video exports (root children ``track``) are another format and are refused.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from lxml import etree

from ..errors import DataError
from .rle import CvatMask, decode_mask

_FARTHEST = 1e6  # pixels; nothing that was drawn on an image lies farther away
SHAPES = ("box", "cuboid", "ellipse", "mask", "points", "polygon", "polyline", "skeleton")


class CvatError(DataError):
    """An annotation file that cannot be used; the message names file, image and remedy."""


@dataclass
class Shape:
    """One drawn shape of an image.

    Attributes:
        kind: the element's name, one of `SHAPES`.
        label: its class ("" where not given).
        source: "manual", "auto", "semi-auto", "file", ... ("" where not given).
        attributes: the element's XML attributes as written.
        values: its ``attribute`` children, name -> text.
    """

    kind: str
    label: str
    source: str
    attributes: dict[str, str]
    values: dict[str, str] = field(default_factory=dict)

    def polygon(self) -> np.ndarray | None:
        """[N, 2] float64 x, y in pixels, of shapes that are outlines; else None.

        A box becomes its rectangle (turned by ``rotation`` degrees clockwise about its centre).

        Raises:
            ValueError: coordinates are missing, no numbers, or absurd.
        """
        if self.kind in ("polygon", "polyline"):
            pairs = [pair.split(",") for pair in self._text("points").split(";") if pair.strip()]
            if any(len(pair) != 2 for pair in pairs):
                raise ValueError('points are not written as "x,y;x,y;..."')
            return _plausible(np.array(pairs, dtype=np.float64).reshape(-1, 2))
        if self.kind == "box":
            x0, y0, x1, y1 = (self.number(k) for k in ("xtl", "ytl", "xbr", "ybr"))
            corners = _plausible(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
            angle = np.deg2rad(float(self.attributes.get("rotation", 0)))
            centre = corners.mean(axis=0)
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            return (corners - centre) @ turn + centre
        return None

    def coded_mask(self) -> CvatMask:
        """The run lengths of a ``mask`` element.

        Raises:
            ValueError: they or the box are missing or no numbers.
        """
        box = [int(self.number(k)) for k in ("left", "top", "width", "height")]
        counts = tuple(int(v) for v in self._text("rle").split(",") if v.strip())
        return CvatMask(counts, *box)

    def number(self, key: str) -> float:
        """The value of an XML attribute.

        Raises:
            ValueError: it is missing or no number.
        """
        return float(self._text(key))

    def _text(self, key: str) -> str:
        if key not in self.attributes:
            raise ValueError(f"{key} is missing")
        return self.attributes[key]

    def mask(self, height: int, width: int) -> np.ndarray:
        """[height, width] bool, of a ``mask`` element.

        Raises:
            ValueError: they or the box are missing or broken, or do not fit each other.
        """
        return decode_mask(self.coded_mask(), height, width)


def _plausible(points: np.ndarray) -> np.ndarray:
    if not (np.abs(points) <= _FARTHEST).all():  # also NaN
        raise ValueError(f"coordinates are not finite, or beyond {_FARTHEST:.0f} pixels")
    return points


@dataclass
class CvatImage:
    """One image element: ``name`` as written (may contain folders), size in pixels, shapes.

    An element without a usable name has ``name == ""``, one without a usable size 0 x 0: it can
    be left out (see ``problem``) and costs no other.
    """

    id: int
    name: str
    width: int
    height: int
    subset: str
    shapes: list[Shape]
    tags: list[str]

    @property
    def title(self) -> str:
        """For messages: the name, or the id where there is none."""
        return self.name or f"id {self.id}"

    @property
    def problem(self) -> str:
        """Why nothing can be done with the image; "" where it can."""
        wrong = [] if self.name else ["name"]
        wrong += [k for k in ("width", "height") if getattr(self, k) < 1]
        return f"the annotation file gives no usable {' and '.join(wrong)}" if wrong else ""


def iterate_images(path: str) -> Iterator[CvatImage]:
    """Yields the image elements in the order of the file.

    Raises:
        CvatError: no CVAT XML, or a video export.
        FileNotFoundError: there is no such file.
    """
    for event, element in parse(path, ("start", "end"), ("image", "track")):
        if element.tag == "track" and event == "start":
            if element.getparent() is not None and element.getparent().tag == "annotations":
                raise CvatError(
                    f'{path} is a video export (tracks); export the task as "CVAT for images 1.1"'
                )
        elif element.tag == "image" and event == "end":
            yield image_of(element)
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]


def image_of(element: etree._Element) -> CvatImage:
    """What an image element says; what is missing or broken is empty, see `CvatImage`."""
    return CvatImage(
        id=_whole(element, "id", -1),
        name=element.get("name", ""),
        width=_whole(element, "width", 0),
        height=_whole(element, "height", 0),
        subset=element.get("subset", ""),
        shapes=[_shape(child) for child in element if child.tag in SHAPES],
        tags=[child.get("label", "") for child in element.iterchildren("tag")],
    )


def _whole(element: etree._Element, key: str, otherwise: int) -> int:
    try:
        return int(element.get(key, otherwise))
    except ValueError:
        return otherwise


def _shape(element: etree._Element) -> Shape:
    return Shape(
        kind=element.tag,
        label=element.get("label", ""),
        source=element.get("source", ""),
        attributes=dict(element.attrib),
        values={child.get("name", ""): child.text or "" for child in element.iter("attribute")},
    )


def parse(path: str, events: tuple[str, ...], tags: tuple[str, ...]) -> Iterator:
    """Yields (event, element) of some tags as the file streams by.

    Raises:
        CvatError: no readable XML, or its root is not ``annotations``.
        FileNotFoundError: there is no such file.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no annotation file {path}")
    root_seen = False
    try:
        for event, element in etree.iterparse(
            path,
            events=events,
            tag=("annotations", "{*}annotations", *tags),
            resolve_entities=False,
            no_network=True,
        ):
            if element.tag.endswith("}annotations") and element.getparent() is None:
                raise CvatError(
                    f"{path}: its root has a namespace, which CVAT never writes; remove "
                    'xmlns="..." from <annotations>'
                )
            root_seen = root_seen or element.tag == "annotations"
            if not root_seen:
                break
            if element.tag != "annotations":
                yield event, element
    except etree.XMLSyntaxError as error:
        raise CvatError(f"{path} is no readable XML: {error}") from error
    if not root_seen:
        raise CvatError(
            f"{path} is no CVAT annotation file: its root is not <annotations>; export the task as "
            '"CVAT for images 1.1"'
        )
