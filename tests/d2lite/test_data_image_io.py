"""Images written by the test and read back: formats, orientation, depth, damage."""

import numpy as np
import pytest
import torch
from PIL import Image

import detectron2
from detectron2.data import detection_utils as utils

only_d2lite = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="d2lite's own messages"
)
EXIF_ORIENTATION = 0x0112


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(path, array, mode=None, **kwargs):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **kwargs)
    return str(path)


def test_rgb_and_bgr(tmp_path, rgb):
    path = saved(tmp_path / "x.png", rgb)
    assert np.array_equal(utils.read_image(path, "RGB"), rgb)
    assert np.array_equal(utils.read_image(path, "BGR"), rgb[:, :, ::-1])
    assert utils.read_image(path, "RGB").dtype == np.uint8


def test_grey_gets_a_channel_axis_only_on_request(tmp_path, rgb):
    path = saved(tmp_path / "x.png", rgb[:, :, 0])
    assert np.array_equal(utils.read_image(path, "L"), rgb[:, :, :1])
    assert np.array_equal(utils.read_image(path), rgb[:, :, 0])


def test_a_palette_image_gives_its_indices_or_its_colours(tmp_path):
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "x.png")
    path = str(tmp_path / "x.png")
    assert np.array_equal(utils.read_image(path), indices)
    assert utils.read_image(path, "RGB")[1, 0].tolist() == [0, 0, 255]


def test_16_bit_labels_survive(tmp_path):
    labels = np.array([[0, 846], [65535, 256]], dtype=np.uint16)
    for extension in ("png", "tif"):
        read = utils.read_image(saved(tmp_path / f"x.{extension}", labels))
        assert np.array_equal(read.astype(np.int64), labels)


def test_yuv_goes_there_and_back(tmp_path, rgb):
    yuv = utils.read_image(saved(tmp_path / "x.png", rgb), "YUV-BT.601")
    assert yuv.dtype == np.float64
    assert yuv[0, 0, 0] == pytest.approx(rgb[0, 0] @ [0.299, 0.587, 0.114] / 255)
    back = utils.convert_image_to_rgb(yuv, "YUV-BT.601")
    assert np.abs(back.astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    # How to store an upright image so that each orientation brings it back.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = 200
    image = Image.fromarray(np.ascontiguousarray(undo(upright)))
    exif = image.getexif()
    exif[EXIF_ORIENTATION] = orientation
    path = str(tmp_path / "x.png")
    image.save(path, exif=exif)
    assert np.array_equal(utils.read_image(path, "RGB"), upright)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        utils.read_image(str(tmp_path / "gone.png"), "RGB")


@only_d2lite
@pytest.mark.parametrize("kind", ["text", "truncated png", "truncated jpg", "empty"])
def test_a_damaged_image_is_named_and_the_cause_kept(tmp_path, rgb, kind):
    path = tmp_path / ("x.jpg" if kind == "truncated jpg" else "x.png")
    big = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    saved(path, big)
    content = path.read_bytes()
    content = {"text": b"not an image", "empty": b""}.get(kind, content[: len(content) // 2])
    path.write_bytes(content)
    with pytest.raises(OSError, match=rf"Cannot decode image '.*{path.name}'") as error:
        utils.read_image(str(path), "RGB")
    assert error.value.__cause__ is not None


@only_d2lite
def test_a_wrong_format_is_no_damaged_image(tmp_path, rgb):
    with pytest.raises(ValueError):
        utils.read_image(saved(tmp_path / "x.png", rgb), "GBR")


@pytest.mark.parametrize("format", ["BGR", "RGB", "L"])
def test_images_are_shown_as_rgb(rgb, format):
    image = {"BGR": rgb[:, :, ::-1], "RGB": rgb, "L": rgb[:, :, :1]}[format]
    expected = np.repeat(rgb[:, :, :1], 3, axis=2) if format == "L" else rgb
    assert np.array_equal(utils.convert_image_to_rgb(image, format), expected)
    tensor = torch.as_tensor(np.ascontiguousarray(image))
    assert np.array_equal(utils.convert_image_to_rgb(tensor, format), expected)


def test_sizes_are_filled_in_or_compared(rgb):
    record = {"file_name": "x.png"}
    utils.check_image_size(record, rgb)
    assert (record["width"], record["height"]) == (7, 5)
    utils.check_image_size(record, rgb)
    with pytest.raises(utils.SizeMismatchError, match=r"x\.png"):
        utils.check_image_size({"file_name": "x.png", "width": 5, "height": 7}, rgb)
    assert issubclass(utils.SizeMismatchError, ValueError)
