"""Drawings of proposals: colours of labels, names on their objects, new CVAT documents."""

from types import SimpleNamespace

import numpy as np
import pytest

from mask2former.data.cvat import encode_mask, iterate_images, read_labels
from mask2former.data.cvat.writing import new_document
from mask2former.inference.annotation import Proposal
from mask2former.inference.annotation.drawing import (
    _inner_point,
    draw_proposals,
    label_colors,
    proposal_colors,
)

COLORS = {"rail": (200, 30, 30), "post": (20, 20, 220)}


def square(y, x, side=20, label="rail", score=0.9, size=(60, 80)):
    mask = np.zeros(size, dtype=bool)
    mask[y : y + side, x : x + side] = True
    return Proposal(label, encode_mask(mask), score)


def test_objects_of_a_label_have_neighbouring_but_different_colours():
    proposals = [square(0, 0), square(30, 0), square(0, 30, label="post"), square(30, 30)]
    first, second, post, third = proposal_colors(proposals, COLORS)
    assert first == COLORS["rail"]
    assert post == COLORS["post"]
    assert len({first, second, third}) == 3
    for red, green, blue in (second, third):
        assert red > green and red > blue  # still a red


def test_labels_without_a_colour_get_one():
    metadata = SimpleNamespace(
        get=lambda key, default=None: {"thing_classes": ["a", "b"]}.get(key, default)
    )
    colors = label_colors(metadata, {"b": "B"})
    assert colors.keys() == {"a", "B"}
    assert colors["a"] != colors["B"]


@pytest.mark.parametrize("opacity", [0.0, 0.5, 1.0])
def test_the_fill_is_mixed_by_opacity(opacity):
    image = np.full((60, 80, 3), 100, dtype=np.uint8)
    drawn = draw_proposals(image, [square(30, 50)], COLORS, opacity=opacity)
    blue, green, red = drawn[46, 52].astype(float)  # inside, away from outline and name
    expected = [100 * (1 - opacity) + c * opacity for c in COLORS["rail"]]
    np.testing.assert_allclose([red, green, blue], expected, atol=1.5)
    assert (drawn[5, 5] == 100).all()


def test_a_scaled_drawing_is_a_whole_multiple():
    image = np.full((60, 80, 3), 100, dtype=np.uint8)
    assert draw_proposals(image, [square(30, 50)], COLORS, scale=3).shape == (180, 240, 3)


def test_the_name_of_a_bent_object_lies_on_it():
    mask = np.zeros((50, 60), dtype=bool)
    mask[10:18, 5:55] = mask[10:45, 5:13] = True  # an L: its box's centre is outside
    x, y = _inner_point(Proposal("rail", encode_mask(mask)))
    assert mask[int(y), int(x)]
    assert not mask[27, 30]


def test_a_new_document_has_the_labels_and_images_that_were_given(tmp_path):
    names = ['a "b" & <c>.jpg', "sub/ä.png"]
    text = new_document([(names[0], 30, 20), (names[1], 7, 8)], ["rail & post", "x"])
    path = tmp_path / "annotations.xml"
    path.write_bytes(text)
    assert read_labels(str(path)) == ["rail & post", "x"]
    images = list(iterate_images(str(path)))
    assert [(i.name, i.width, i.height, i.shapes) for i in images] == [
        (names[0], 30, 20, []),
        (names[1], 7, 8, []),
    ]
