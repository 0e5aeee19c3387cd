"""Editing CVAT XML leaves every other byte as it was."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask2former.data.cvat import CvatError, document, iterate_images
from mask2former.data.cvat.document import NewShape, edit_image, read_image, split_document

NEW = NewShape("mask", {"label": 'a "b" <c>', "rle": "0, 1"}, {"score": "0.9 & more"})

RICH = b"""<?xml version="1.0" encoding="utf-8"?>
<!-- exported > 2024 -->
<annotations>
  <version>1.1</version>
  <meta><task><name>images &amp; more <image/></name><unknown a='>'/></task></meta>
  <image id="0" name="a/b &gt; c.jpg" width="9" height="9">
    <tag label="odd" source="manual"></tag>
    <box label="x" source="manual" occluded="0" xtl="1.00" ytl="1" xbr="3" ybr="4" z_order="0">
      <attribute name="q">v &#228;</attribute>
    </box>
    <mask label="x" source="auto" rle="0, 4" left="1" top="1" width="2" height="2"/><future x="/>"/>
  </image><image id="1" name='\xc3\xa4.jpg' width="9" height="9"/>
  <image id="2" name="c.jpg" width="9" height="9"></image >
  <track id="0" label="car"><box frame="0"/></track>
</annotations>
"""


def write(folder: Path, data: bytes) -> str:
    file = folder / "annotations.xml"
    file.write_bytes(data)
    return str(file)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 18])
def test_the_pieces_are_the_file_for_any_chunk_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(document, "_CHUNK", chunk)
    pieces = list(split_document(write(tmp_path, RICH)))
    assert b"".join(p.data for p in pieces) == RICH
    images = [p.data for p in pieces if p.is_image]
    assert [read_image(p).name for p in images] == ["a/b > c.jpg", "ä.jpg", "c.jpg"]
    assert images[2].endswith(b"</image >")


def images_of(tmp_path):
    return [p.data for p in split_document(write(tmp_path, RICH)) if p.is_image]


def test_an_edit_of_nothing_changes_nothing(tmp_path):
    for piece in images_of(tmp_path):
        assert edit_image(piece) == piece


def test_added_shapes_stand_behind_the_old_bytes(tmp_path):
    for piece in images_of(tmp_path):
        before = read_image(piece)
        edited = edit_image(piece, add=[NEW, NEW])
        after = read_image(edited)
        assert after.shapes[:-2] == before.shapes
        assert after.shapes[-1].label == 'a "b" <c>'
        assert after.shapes[-1].values == {"score": "0.9 & more"}
        head = re.sub(rb"\s*(/>|</image ?>)$", b"", piece)
        assert edited.startswith(head)


def test_only_the_chosen_shape_goes(tmp_path):
    piece = images_of(tmp_path)[0]
    edited = edit_image(piece, remove=lambda i, shape: shape.source == "auto")
    start = piece.index(b"<mask")
    assert edited == piece[:start].rstrip() + piece[piece.index(b"<future") :]
    edited = edit_image(piece, remove=lambda i, shape: i == 0)
    assert b"<box" not in edited
    assert b"<attribute" not in edited
    assert edited.count(b"<mask") == 1


@pytest.mark.parametrize(
    "data, message",
    [
        (b"<annotations><image id='0'></annotations>", "no readable XML"),
        (b"<annotation/>", "root is <annotation>"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><annotations/>', "declares entities"),
        (b'<?xml version="1.0" encoding="utf-16"?><annotations/>', "UTF-16|utf-16|no readable"),
        (b"", "no readable XML"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    with pytest.raises(CvatError, match=message):
        list(split_document(write(tmp_path, data)))


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
new_shapes = st.builds(
    NewShape,
    st.sampled_from(["mask", "polygon"]),
    st.fixed_dictionaries({"label": texts, "points": texts}),
    st.dictionaries(texts, texts, max_size=3),
)


@given(st.lists(st.lists(new_shapes, max_size=3), min_size=1, max_size=4), texts)
@settings(max_examples=60, deadline=None)
def test_what_was_added_can_be_read_and_taken_away_again(tmp_path_factory, added, name):
    folder = tmp_path_factory.mktemp("cvat")
    attributes = NewShape("image", {"id": "0", "name": name, "width": "9", "height": "9"}, {})
    image = attributes.render("  ")
    original = b"<annotations>\n  " + b"\n  ".join([image] * len(added)) + b"\n</annotations>"
    file = write(folder, original)
    todo = iter(added)
    edited = b"".join(
        edit_image(p.data, add=next(todo)) if p.is_image else p.data for p in split_document(file)
    )
    file = write(folder, edited)
    read = list(iterate_images(file))
    for image, shapes in zip(read, added, strict=True):
        assert image.name == name
        assert [s.attributes for s in image.shapes] == [s.attributes for s in shapes]
        assert [s.values for s in image.shapes] == [s.values for s in shapes]
    emptied = [
        edit_image(p.data, remove=lambda i, shape: True) for p in split_document(file) if p.is_image
    ]
    assert all(not read_image(piece).shapes for piece in emptied)


def test_prefixes_that_the_root_declares_are_kept(tmp_path):
    text = (
        '<annotations xmlns:x="http://x"><image id="0" name="a" width="9" height="9"><x:note/>'
        '<box x:by="me" label="p" xtl="1" ytl="1" xbr="2" ybr="2"/></image></annotations>'
    )
    (tmp_path / "a.xml").write_text(text)
    pieces = list(split_document(str(tmp_path / "a.xml")))
    edited = b"".join(
        edit_image(p.data, remove=lambda index, shape: True) if p.is_image else p.data
        for p in pieces
    )
    assert edited.decode() == text[: text.index("<box")] + "</image></annotations>"


def test_utf16_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.xml").write_bytes("<annotations/>".encode("utf-16"))
    with pytest.raises(CvatError, match="encoded as UTF-16"):
        list(split_document(str(tmp_path / "a.xml")))
