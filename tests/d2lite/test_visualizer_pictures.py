"""What a Visualizer leaves on the picture."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.visualizer import (
    ColorMode,
    Visualizer,
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
