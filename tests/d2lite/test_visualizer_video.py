"""Colours that stay with an object from frame to frame."""

import numpy as np
import pytest
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode

SIZE = (90, 120)
FRAME = np.full((*SIZE, 3), 100, np.uint8)


@pytest.fixture
def metadata():
    return Metadata(name="video_test").set(
        thing_classes=["cat", "dog"],
        stuff_classes=["sky"],
        stuff_colors=[(255, 0, 0)],
        thing_colors=[(0, 0, 255), (0, 255, 0)],
    )


def square(x, y, side=30):
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def predictions(places, classes=None, boxes=False):
    result = Instances(SIZE)
    result.scores = torch.ones(len(places))
    result.pred_classes = torch.tensor(classes or [0] * len(places))
    if boxes:
        corners = [[x, y, x + 30, y + 30] for x, y in places]
        result.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32))
    else:
        result.pred_masks = torch.from_numpy(np.stack([square(*p) for p in places]))
    return result


def color_at(visualizer, frame_predictions, x, y):
    picture = visualizer.draw_instance_predictions(FRAME, frame_predictions).get_image()
    return tuple(picture[y, x].tolist())


@pytest.mark.parametrize("boxes", [False, True])
def test_a_moving_object_keeps_its_colour_whatever_its_position_in_the_list(metadata, boxes):
    visualizer = VideoVisualizer(metadata)
    first = visualizer._track  # the colours are what is compared
    a = predictions([(5, 5), (70, 50)], boxes=boxes)
    b = predictions([(72, 51), (7, 6)], boxes=boxes)

    def colors(p):
        arrays = p.pred_boxes.tensor.numpy() if boxes else None
        masks = None if boxes else np.asarray(p.pred_masks)
        return [tuple(c) for c in first(p.pred_classes.tolist(), arrays, masks)]

    one, two = colors(a), colors(b)
    assert one[0] != one[1]
    assert two == one[::-1]


def test_a_class_change_makes_a_new_object(metadata):
    visualizer = VideoVisualizer(metadata)
    before = color_at(visualizer, predictions([(40, 40)], [0]), 45, 65)
    after = color_at(visualizer, predictions([(40, 40)], [1]), 45, 65)
    assert before != after


def test_an_object_is_remembered_for_some_frames_and_then_forgotten(metadata):
    visualizer = VideoVisualizer(metadata)
    before = color_at(visualizer, predictions([(40, 40)]), 45, 65)
    for _ in range(3):
        color_at(visualizer, predictions([(0, 0)]), 0, 0)
    assert color_at(visualizer, predictions([(40, 40)]), 45, 65) == before
    for _ in range(12):
        color_at(visualizer, predictions([(0, 0)]), 0, 0)
    assert len(visualizer._old) == 1


def test_more_objects_than_colours_still_work(metadata):
    metadata.set(max_num_instances=2)
    visualizer = VideoVisualizer(metadata)
    color_at(visualizer, predictions([(0, 0), (35, 0), (70, 0), (0, 45)]), 0, 0)


def test_a_frame_without_objects_is_shown_as_it_is(metadata):
    for mode in (ColorMode.IMAGE, ColorMode.IMAGE_BW):
        visualizer = VideoVisualizer(metadata, mode)
        nothing = Instances(SIZE, scores=torch.zeros(0))
        picture = visualizer.draw_instance_predictions(FRAME, nothing).get_image()
        assert (picture == FRAME).all()


def test_panoptic_frames_have_class_colours_for_stuff_and_stable_ones_for_things(metadata):
    visualizer = VideoVisualizer(metadata)
    pictures = []
    for shift in (0, 2):
        seg = np.ones(SIZE, np.int32)
        seg[square(40 + shift, 40)] = 2
        infos = [
            {"id": 1, "isthing": False, "category_id": 0},
            {"id": 2, "isthing": True, "category_id": 1},
        ]
        output = visualizer.draw_panoptic_seg_predictions(FRAME, torch.from_numpy(seg), infos)
        pictures.append(output.get_image())
    assert pictures[0][5, 100].tolist() == [178, 50, 50]
    assert pictures[0][65, 50].tolist() == pictures[1][65, 50].tolist()


def test_semantic_frames_are_drawn(metadata):
    sem_seg = np.zeros(SIZE, int)
    picture = VideoVisualizer(metadata).draw_sem_seg(FRAME, sem_seg).get_image()
    assert picture[80, 10, 0] > 200
