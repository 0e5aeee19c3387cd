"""What a Visualizer leaves on the picture."""

import subprocess
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.visualizer import (
    ColorMode,
    GenericMask,
    VisImage,
    Visualizer,
    _create_text_labels,
    _PanopticPrediction,
)

HEIGHT, WIDTH = 90, 120
GREY = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
RED = (255, 0, 0)


@pytest.fixture
def metadata():
    return Metadata(name="visualizer_test").set(
        thing_classes=["cat", "dog"],
        thing_colors=[(0, 0, 255), (0, 255, 0)],
        stuff_classes=["sky", "sea"],
        stuff_colors=[RED, (0, 200, 200)],
    )


def block(y0, y1, x0, x1):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def changed(picture, before=GREY):
    return (picture != before).any(axis=-1)


def instances(**fields):
    result = Instances((HEIGHT, WIDTH))
    for name, value in fields.items():
        result.set(name, value)
    return result


# --- canvas -----------------------------------------------------------------------------------


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


# --- masks ------------------------------------------------------------------------------------


def test_a_mask_is_blended_inside_and_outlined_with_its_colour():
    mask = block(20, 60, 20, 70)
    picture = Visualizer(GREY).draw_binary_mask(mask, color="r", alpha=0.5).get_image()
    assert picture[40, 40].tolist() == [178, 50, 50]
    assert picture[20, 45].tolist() == pytest.approx([255, 0, 0], abs=20)
    assert not changed(picture)[:18].any() and not changed(picture)[:, 73:].any()


def test_holes_stay_open_at_every_scale():
    mask = block(10, 80, 10, 80) & ~block(30, 60, 30, 60)
    for scale in (1.0, 2.0):
        visualizer = Visualizer(GREY, scale=scale)
        picture = visualizer.draw_binary_mask(mask, color="r").get_image()
        assert picture[int(45 * scale), int(45 * scale)].tolist() == [100, 100, 100]
        assert picture[int(20 * scale), int(20 * scale), 0] > 150


def test_masks_below_the_area_threshold_and_empty_ones_are_not_drawn():
    visualizer = Visualizer(GREY)
    visualizer.draw_binary_mask(block(0, 3, 0, 3), color="r", area_threshold=10, text="no")
    visualizer.draw_binary_mask(block(0, 0, 0, 0), color="r", text="no")
    assert not changed(visualizer.get_output().get_image()).any()


def test_a_label_lies_inside_of_its_mask_even_if_that_is_a_ring():
    mask = block(5, 85, 5, 115) & ~block(15, 75, 15, 105)
    visualizer = Visualizer(GREY)
    visualizer.draw_binary_mask(mask, color="r", text="x")
    (label,) = visualizer.output.labels
    height = label.size  # pixels
    assert mask[min(HEIGHT - 1, int(label.y + 0.6 * height)), int(label.x)]


def test_soft_masks_are_as_opaque_as_their_values():
    soft = np.zeros((HEIGHT, WIDTH))
    soft[:, 60:] = 0.5
    picture = Visualizer(GREY).draw_soft_mask(soft, color="r", alpha=1.0).get_image()
    assert picture[40, 20].tolist() == [100, 100, 100]
    assert picture[40, 90, 0] == pytest.approx(178, abs=2)


# --- instances --------------------------------------------------------------------------------


def test_instances_are_labelled_with_class_and_percentage(metadata):
    visualizer = Visualizer(GREY, metadata)
    visualizer.draw_instance_predictions(
        instances(
            pred_boxes=Boxes(torch.tensor([[10.0, 10, 60, 60], [70, 20, 110, 80]])),
            scores=torch.tensor([0.987, 0.5]),
            pred_classes=torch.tensor([0, 1]),
            pred_masks=torch.from_numpy(np.stack([block(10, 60, 10, 60), block(20, 80, 70, 110)])),
        )
    )
    assert {label.text for label in visualizer.output.labels} == {"cat 99%", "dog 50%"}
    assert changed(visualizer.get_output().get_image())[15:55, 15:55].all()


def test_boxes_of_zeros_are_left_out_and_labels_go_to_the_masks(metadata):
    visualizer = Visualizer(GREY, metadata)
    visualizer.draw_instance_predictions(
        instances(
            pred_boxes=Boxes(torch.zeros(1, 4)),
            scores=torch.tensor([0.9]),
            pred_classes=torch.tensor([0]),
            pred_masks=torch.from_numpy(block(40, 80, 60, 110))[None].float(),
        )
    )
    (label,) = visualizer.output.labels
    assert 60 < label.x < 110 and 40 < label.y < 80


def test_segmentation_mode_uses_the_colours_of_the_classes(metadata):
    visualizer = Visualizer(GREY, metadata, instance_mode=ColorMode.SEGMENTATION)
    predictions = instances(
        pred_classes=torch.tensor([1]), pred_masks=torch.from_numpy(block(10, 60, 10, 60))[None]
    )
    picture = visualizer.draw_instance_predictions(predictions, jittering=False).get_image()
    assert picture[50, 20].tolist() == pytest.approx([20, 224, 20], abs=1)


def test_bw_mode_greys_what_is_not_predicted(metadata):
    image = GREY.copy()
    image[..., 0] = 190
    predictions = instances(
        pred_classes=torch.tensor([1]), pred_masks=torch.from_numpy(block(10, 60, 10, 60))[None]
    )
    visualizer = Visualizer(image, metadata, instance_mode=ColorMode.IMAGE_BW)
    picture = visualizer.draw_instance_predictions(predictions).get_image()
    assert len(set(picture[80, 100].tolist())) == 1
    assert len(set(picture[50, 20].tolist())) > 1


def test_no_instances_leave_the_picture_as_it_is(metadata):
    empty = instances(
        pred_boxes=Boxes(torch.zeros(0, 4)),
        scores=torch.zeros(0),
        pred_classes=torch.zeros(0, dtype=torch.int64),
        pred_masks=torch.zeros(0, HEIGHT, WIDTH),
    )
    picture = Visualizer(GREY, metadata).draw_instance_predictions(empty).get_image()
    assert not changed(picture).any()


def test_large_objects_do_not_hide_small_ones():
    masks = np.stack([block(30, 50, 30, 50), block(0, 90, 0, 120)])
    picture = (
        Visualizer(GREY)
        .overlay_instances(masks=masks, assigned_colors=["r", "b"], alpha=1.0)
        .get_image()
    )
    assert picture[40, 40].tolist() == [255, 0, 0]


@pytest.mark.parametrize("form", ["bitmasks", "polygons", "polygon_masks", "rle", "arrays"])
def test_masks_may_come_in_any_form(form):
    mask = block(20, 60, 20, 70)
    polygon = [20.0, 20, 70, 20, 70, 60, 20, 60]
    masks = {
        "bitmasks": BitMasks(torch.from_numpy(mask)[None]),
        "polygons": [[polygon]],
        "polygon_masks": PolygonMasks([[np.array(polygon)]]),
        "rle": [mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))],
        "arrays": [mask],
    }[form]
    visualizer = Visualizer(GREY)
    picture = visualizer.overlay_instances(masks=masks, assigned_colors=["r"]).get_image()
    assert (changed(picture) == mask).mean() > 0.97


def test_different_numbers_of_things_are_refused():
    with pytest.raises(AssertionError, match=r"\[2, 1\]"):
        Visualizer(GREY).overlay_instances(boxes=np.zeros((2, 4)), labels=["a"])


def test_equal_input_gives_equal_pictures_and_leaves_global_randomness_alone(metadata):
    state = np.random.get_state()[1].copy()
    mask = block(20, 60, 20, 70)
    pictures = [
        Visualizer(GREY, metadata).overlay_instances(masks=[mask, mask]).get_image()
        for _ in range(2)
    ]
    assert np.array_equal(*pictures)
    assert np.array_equal(np.random.get_state()[1], state)


# --- semantic, panoptic, records --------------------------------------------------------------


def test_semantic_maps_are_drawn_in_the_colours_of_their_classes(metadata):
    sem_seg = np.full((HEIGHT, WIDTH), 255)
    sem_seg[:, :60] = 0
    visualizer = Visualizer(GREY, metadata)
    picture = visualizer.draw_sem_seg(torch.from_numpy(sem_seg), alpha=0.8).get_image()
    assert picture[80, 10].tolist() == [224, 20, 20]
    assert not changed(picture)[:, 64:].any()
    assert [label.text for label in visualizer.output.labels] == ["sky"]


def panoptic():
    seg = np.zeros((HEIGHT, WIDTH), np.int32)
    seg[:45], seg[45:80], seg[60:75, 20:50] = 1, 2, 70001
    infos = [
        {"id": 1, "isthing": False, "category_id": 0},
        {"id": 2, "isthing": False, "category_id": 1},
        {"id": 70001, "isthing": True, "category_id": 1, "score": 0.75},
    ]
    return seg, infos


def test_panoptic_maps_show_stuff_and_things_with_their_names(metadata):
    seg, infos = panoptic()
    visualizer = Visualizer(GREY, metadata)
    picture = visualizer.draw_panoptic_seg(torch.from_numpy(seg), infos).get_image()
    assert {label.text for label in visualizer.output.labels} == {"sky", "sea", "dog 75%"}
    assert picture[5, 5].tolist() == [209, 30, 30]
    assert not changed(picture)[83:, 100:].any()  # void


def test_segments_without_info_are_left_out(metadata):
    seg, infos = panoptic()
    picture = Visualizer(GREY, metadata).draw_panoptic_seg(seg, infos[:1]).get_image()
    assert not changed(picture)[48:].any()


def test_bw_mode_keeps_the_colours_of_predicted_parts(metadata):
    image = GREY.copy()
    image[..., 2] = 40
    seg, infos = panoptic()
    visualizer = Visualizer(image, metadata, instance_mode=ColorMode.IMAGE_BW)
    picture = visualizer.draw_panoptic_seg(seg, infos, alpha=0.0).get_image()
    assert len(set(picture[85, 100].tolist())) == 1
    assert picture[5, 5].tolist() == [100, 100, 40]


def test_panoptic_segments_come_by_kind_with_full_size_masks():
    seg, infos = panoptic()
    prediction = _PanopticPrediction(seg, infos)
    stuff, things = list(prediction.semantic_masks()), list(prediction.instance_masks())
    assert [info["id"] for _, info in stuff] == [1, 2]  # largest first
    assert [(m.shape, m.sum()) for m, _ in things] == [((HEIGHT, WIDTH), 450)]
    assert np.array_equal(prediction.non_empty_mask(), seg > 0)


def test_maps_of_category_times_divisor_need_no_segments_info(metadata):
    metadata.set(label_divisor=1000, thing_dataset_id_to_contiguous_id={7: 1})
    seg = np.full((HEIGHT, WIDTH), -1)
    seg[:40], seg[50:70] = 0, 1001
    visualizer = Visualizer(GREY, metadata)
    visualizer.draw_panoptic_seg(seg, None)
    assert {label.text for label in visualizer.output.labels} == {"sky", "dog"}


def test_a_record_is_drawn_with_all_it_has(metadata):
    record = {
        "annotations": [
            {
                "bbox": [10, 10, 30, 40],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "segmentation": [[10.0, 10, 40, 10, 40, 50, 10, 50]],
                "iscrowd": 1,
            }
        ],
        "sem_seg": np.where(block(60, 90, 0, 120), 1, 255),
    }
    visualizer = Visualizer(GREY, metadata)
    picture = visualizer.draw_dataset_dict(record).get_image()
    assert {label.text for label in visualizer.output.labels} == {"cat|crowd", "sea"}
    assert changed(picture)[70, 10] and changed(picture)[40, 15]


# --- small parts ------------------------------------------------------------------------------


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
