"""CVAT's run lengths and XML: the recorded cases, round trips, and errors that name the image."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mask2former.data.cvat import (
    CvatError,
    CvatMask,
    decode_mask,
    encode_mask,
    iterate_images,
    read_labels,
)

RECORDED = Path(__file__).parents[1] / "fixtures" / "cvat"
EXPECTED = json.loads((RECORDED / "expected.json").read_text())
MASKS = np.load(RECORDED / "masks.npz")


@pytest.mark.parametrize("name", MASKS.files)
def test_masks_are_coded_as_cvat_codes_them(name):
    coded = encode_mask(MASKS[name])
    expected = EXPECTED[name]["expected"]
    if expected is None:
        assert coded is None
        return
    found = {**coded.attributes}
    assert found == {key: str(value) for key, value in expected.items()}
    assert coded.points == EXPECTED[name]["cvat_points"]


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=200, deadline=None)
def test_a_mask_survives_the_round_trip(mask):
    coded = encode_mask(mask)
    if coded is None:
        assert not mask.any()
    else:
        assert sum(coded.counts) == coded.width * coded.height
        np.testing.assert_array_equal(decode_mask(coded, *mask.shape), mask)


@pytest.mark.parametrize(
    "name", [k for k in MASKS.files if EXPECTED[k].get("original_is_correct") is False]
)
def test_the_published_pipelines_shifted_masks_are_mended(name):
    box = EXPECTED[name]["expected"]
    counts = tuple(int(v) for v in EXPECTED[name]["original_output"].split(","))
    coded = CvatMask(counts, box["left"], box["top"], box["width"], box["height"])
    np.testing.assert_array_equal(decode_mask(coded, *MASKS[name].shape), MASKS[name])


def test_run_lengths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="add up to 5, but its box is 2x2 = 4"):
        decode_mask(CvatMask((0, 5), 0, 0, 2, 2), 9, 9)


def test_images_come_with_their_shapes():
    images = list(iterate_images(str(RECORDED / "input_annotations.xml")))
    assert [i.name for i in images] == ["a.jpg", "b.jpg", "sub/c.jpg"]
    assert [s.kind for s in images[0].shapes] == ["box", "mask"]
    assert images[0].shapes[1].values == {"q": "v"}
    assert images[0].shapes[1].mask(9, 13)[1:3, 1:3].all()
    np.testing.assert_array_equal(images[1].shapes[0].polygon(), [[1, 1], [3, 1], [3, 4]])


def test_a_turned_box_keeps_its_centre_and_sides(tmp_path):
    file = _xml(tmp_path, '<box label="x" xtl="0" ytl="2" xbr="8" ybr="6" rotation="90"/>')
    corners = next(iterate_images(file)).shapes[0].polygon()
    np.testing.assert_allclose(corners.min(0), [2, 0], atol=1e-9)
    np.testing.assert_allclose(corners.max(0), [6, 8], atol=1e-9)
    np.testing.assert_allclose(corners[0], [6, 0], atol=1e-9)  # clockwise, as CVAT shows it


def test_labels_are_those_of_the_task_without_parts_of_skeletons(tmp_path):
    labels = (
        "<labels><label><name>car</name></label><label><name>rider</name></label>"
        "<label><name>knee</name><parent>rider</parent></label></labels>"
    )
    file = _xml(tmp_path, "", meta=f"<task>{labels}</task>")
    assert read_labels(file) == ["car", "rider"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("<annotations><track id='0'/></annotations>", "video export"),
        ("<html/>", "root is not <annotations>"),
        ("<annotations><image", "no readable XML"),
        ("<annotations xmlns='http://x'/>", "its root has a namespace, .* remove xmlns"),
    ],
)
def test_files_that_cannot_be_used_are_explained(tmp_path, text, message):
    file = tmp_path / "annotations.xml"
    file.write_text(text)
    with pytest.raises(CvatError, match=message):
        list(iterate_images(str(file)))


def test_an_image_without_size_and_a_shape_without_label_cost_no_other(tmp_path):
    file = tmp_path / "annotations.xml"
    file.write_text(
        "<annotations><image id='x' name='a.jpg' width='3'/><image/>"
        "<image id='1' name='b.jpg' width='4' height='3'><box/><box label='p'/></image>"
        "</annotations>"
    )
    first, second, third = iterate_images(str(file))
    assert first.problem == "the annotation file gives no usable height"
    assert second.problem.endswith("no usable name and width and height")
    assert not third.problem
    assert [shape.label for shape in third.shapes] == ["", "p"]


def _xml(folder: Path, shapes: str, meta: str = "") -> str:
    file = folder / "annotations.xml"
    file.write_text(
        f"<annotations><version>1.1</version><meta>{meta}</meta>"
        f'<image id="0" name="a.jpg" width="9" height="9">{shapes}</image></annotations>'
    )
    return str(file)
