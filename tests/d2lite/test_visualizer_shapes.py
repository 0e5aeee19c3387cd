"""The canvas, lines, boxes, text, and masks in their forms."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import (
    GenericMask,
    VisImage,
    Visualizer,
    _create_text_labels,
)

HEIGHT, WIDTH = 90, 120
GREY = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
RED = (255, 0, 0)


@pytest.fixture
def metadata():
    return Metadata(name="visualizer_shapes_test").set(thing_classes=["cat", "dog"])


def block(y0, y1, x0, x1):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def changed(picture, before=GREY):
    return (picture != before).any(axis=-1)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.37, 2.0])
def test_the_picture_has_the_scaled_size_and_keeps_the_image(scale):
    canvas = VisImage(GREY, scale)
    picture = canvas.get_image()
    assert picture.shape == (int(HEIGHT * scale + 1e-2), int(WIDTH * scale + 1e-2), 3)
    assert picture.dtype == np.uint8 and (picture == 100).all()
    assert (canvas.width, canvas.height, canvas.scale) == (WIDTH, HEIGHT, scale)


def test_the_given_image_is_not_drawn_on(metadata):
    image = GREY.copy()
    Visualizer(image, metadata).draw_binary_mask(block(10, 50, 10, 50), color="r")
    assert (image == GREY).all()


def test_saving_writes_what_get_image_returns(metadata, tmp_path):
    output = Visualizer(GREY, metadata).draw_box([10, 10, 60, 60])
    output.save(str(tmp_path / "x.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), output.get_image())


def test_drawing_needs_no_matplotlib():
    code = (
        "import sys, numpy as np;"
        "from detectron2.utils.visualizer import Visualizer;"
        "v = Visualizer(np.zeros((50, 50, 3), np.uint8));"
        "v.draw_text('x', (5, 5)); v.draw_box([1, 1, 9, 9]); v.get_output().get_image();"
        "sys.exit('matplotlib.figure' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    path = [p for p in sys.path if p]
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(path)})
    assert done.returncode == 0


def test_a_matplotlib_axis_is_there_for_scripts_that_draw_with_it(metadata):
    visualizer = Visualizer(GREY, metadata, scale=2.0)
    visualizer.output.ax.plot([0, WIDTH], [45, 45], color="white", linewidth=4)
    picture = visualizer.get_output().get_image()
    assert (picture[90, 20:220] > 200).all()  # the line, at twice its coordinate
    assert (picture[10, 10] == 100).all()


def test_text_stays_inside_of_the_picture_and_labels_do_not_cover_each_other():
    visualizer = Visualizer(np.full((200, 300, 3), 255, np.uint8))
    visualizer.draw_text("a long label", (299, 100), color="w", horizontal_alignment="left")
    visualizer.draw_text("another label", (280, 102), color="w", horizontal_alignment="left")
    dark = (visualizer.get_output().get_image() < 80).all(axis=-1)
    rows = np.nonzero(dark[:, 150:].sum(axis=1) > 20)[0]
    assert dark.any() and rows.max() - rows.min() > 25  # two rows of text, one above the other


def test_shapes_leave_their_marks():
    visualizer = Visualizer(GREY)
    visualizer.draw_box([10, 10, 50, 50], alpha=1.0, edge_color="r")
    visualizer.draw_line([60, 110], [20, 20], color="b", linewidth=2)
    visualizer.draw_circle((90, 60), "w", radius=5)
    visualizer.draw_polygon([[20, 60], [50, 60], [50, 85], [20, 85]], "g", alpha=1.0)
    picture = visualizer.get_output().get_image()
    assert picture[30, 10, 0] > 200 and picture[10, 30, 0] > 200
    assert picture[30, 30].tolist() == [100, 100, 100]
    assert picture[20, 85, 2] > 200
    assert picture[60, 90].tolist() == [255, 255, 255]
    assert picture[70, 35, 1] > 100 and picture[70, 35, 0] < 50


def test_dashed_boxes_have_gaps():
    visualizer = Visualizer(GREY)
    visualizer.draw_box([10, 10, 110, 80], alpha=1.0, edge_color="r", line_style="--")
    row = visualizer.get_output().get_image()[10, 15:105, 0] > 150
    assert 0.2 < row.mean() < 0.95


def test_keypoints_and_their_connections_are_drawn(metadata):
    metadata.set(
        keypoint_names=["nose", "eye", "ear"], keypoint_connection_rules=[("nose", "eye", RED)]
    )
    visualizer = Visualizer(GREY, metadata)
    points = [[20, 20, 1.0], [60, 20, 1.0], [100, 80, 0.0]]
    picture = visualizer.draw_and_connect_keypoints(points).get_image()
    assert picture[20, 40, 0] > 200
    assert not changed(picture)[70:, 90:].any()  # not visible


def test_text_labels_join_what_there_is():
    assert _create_text_labels([0, 1], [0.5, 0.25], ["a", "b"]) == ["a 50%", "b 25%"]
    assert _create_text_labels([1], None, None) == ["1"]
    assert _create_text_labels(None, [0.5], ["a"]) == ["50%"]
    assert _create_text_labels([0], None, ["a"], [1]) == ["a|crowd"]
    assert _create_text_labels(None, None, None) is None


def test_generic_masks_convert_between_their_forms():
    mask = block(20, 60, 20, 70) & ~block(30, 40, 30, 40)
    generic = GenericMask(mask, HEIGHT, WIDTH)
    assert generic.has_holes and len(generic.polygons) == 2
    assert generic.area() == mask.sum()
    assert generic.bbox().tolist() == [20, 20, 70, 60]
    square = GenericMask([[1.0, 1, 4, 1, 4, 4, 1, 4]], 6, 6)
    assert square.mask.sum() == 9 and not square.has_holes
    with pytest.raises(AssertionError, match="mask shape"):
        GenericMask(mask, 5, 5)
    with pytest.raises(ValueError, match="GenericMask"):
        GenericMask("text", 5, 5)


def test_brightness_moves_towards_black_or_white():
    visualizer = Visualizer(GREY)
    assert visualizer._change_color_brightness((0.4, 0.4, 0.4), 0.5) == pytest.approx((0.6,) * 3)
    assert visualizer._change_color_brightness((0.4, 0.4, 0.4), -0.5) == pytest.approx((0.2,) * 3)
    with pytest.raises(AssertionError):
        visualizer._change_color_brightness("r", 2.0)
