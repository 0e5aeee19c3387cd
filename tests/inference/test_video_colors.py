"""Colours stay with objects over the frames of a video."""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode
from mask2former.inference.tracking import ColorTracks

REPO = Path(__file__).parents[2]
SIZE = (200, 300)
THINGS, STUFF = 2, 2  # classes; stuff follows things


def disc(x, y, radius=22):
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def scene(t):
    """Three discs at frame t, as (class, center): two of class 0 pass each other, one bounces."""
    return [
        (0, (30 + 11 * t, 60)),
        (0, (270 - 11 * t, 100)),
        (1, (60 + 10 * abs(8 - t), 165)),
    ]


FRAMES = 20
HIDDEN = {(5, 2), (6, 2), (12, 0)}  # (frame, object) that the model misses


def seen(t):
    """Objects found in a frame, in an order that changes."""
    order = np.random.default_rng(t).permutation(3).tolist()
    return [(k, *scene(t)[k]) for k in order if (t, k) not in HIDDEN]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A grey film with darker discs, as a file that OpenCV reads."""
    path = str(tmp_path_factory.mktemp("clip") / "film.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE[::-1])
    for t in range(FRAMES):
        frame = np.full((*SIZE, 3), 150, dtype=np.uint8)
        for _, center in scene(t):
            frame[disc(*center)] = 90
        writer.write(frame)
    writer.release()
    return path


def instances_at(t):
    found = seen(t)
    result = Instances(SIZE)
    result.pred_masks = torch.from_numpy(np.stack([disc(*c) for _, _, c in found])).float()
    result.pred_classes = torch.tensor([label for _, label, _ in found])
    result.scores = torch.full((len(found),), 0.9)
    return {"instances": result}


def panoptic_at(t):
    ids = torch.ones(SIZE, dtype=torch.int32)
    ids[100:] = 2
    segments = [
        {"id": 1, "isthing": False, "category_id": 2},
        {"id": 2, "isthing": False, "category_id": 3},
    ]
    for number, (_, label, center) in enumerate(seen(t), start=3):
        ids[torch.from_numpy(disc(*center))] = number
        segments.append({"id": number, "isthing": True, "category_id": label})
    return {"panoptic_seg": (ids, segments)}


@pytest.fixture
def demo(monkeypatch):
    """``demo(outputs_of_frame, mode)``: the demo with a model that knows the film."""
    spec = importlib.util.spec_from_file_location("demo_predictor", REPO / "demo/predictor.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo_predictor", module)
    spec.loader.exec_module(module)
    metadata = MetadataCatalog.get("video_colors_test")
    names = ["ball", "cube", "sky", "sand"]
    if not metadata.get("stuff_classes"):
        metadata.set(
            thing_classes=names[:THINGS],
            stuff_classes=names,
            thing_colors=[(250, 0, 0), (0, 0, 250)],
            stuff_colors=[(250, 0, 0), (0, 0, 250), (90, 190, 250), (220, 200, 120)],
            thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
        )

    def make(outputs_of_frame, mode=ColorMode.IMAGE):
        class KnowsTheFilm:
            def __init__(self, cfg):
                self.metadata = metadata

            def stream(self, images, batch_size=1):
                for t, _ in enumerate(images):
                    yield outputs_of_frame(t)

        monkeypatch.setattr(module, "Predictor", KnowsTheFilm)
        return module.VisualizationDemo(None, mode)

    return make


def colors_of_objects(demo, clip):
    """Object -> its colour in each frame where it is found and nothing is in front of it."""
    colors = {0: [], 1: [], 2: []}
    for t, frame in enumerate(demo.run_on_video(cv2.VideoCapture(clip))):
        for k, _, (x, y) in seen(t):
            others = [c for other, _, c in seen(t) if other != k]
            if 20 <= x < 280 and all(np.hypot(x - a, y - b) > 50 for a, b in others):
                # Below the name, which stands in the middle.
                colors[k].append(np.median(frame[y + 12 : y + 18, x - 5 : x + 6], axis=(0, 1)))
    return {k: np.array(values) for k, values in colors.items()}


@pytest.mark.parametrize("outputs", [instances_at, panoptic_at])
def test_each_object_keeps_one_colour_of_its_own_through_a_film(demo, clip, outputs):
    colors = colors_of_objects(demo(outputs), clip)
    for values in colors.values():
        assert len(values) >= 12
        assert np.abs(values - values[0]).max() <= 6  # the film is compressed
    firsts = [values[0] for values in colors.values()]
    for i in range(3):
        for j in range(i):
            assert np.abs(firsts[i] - firsts[j]).max() > 25


def test_stuff_keeps_the_colour_of_its_class(demo, clip):
    for frame in demo(panoptic_at).run_on_video(cv2.VideoCapture(clip)):
        blue, _, red = frame[2, 2].astype(int)
        assert blue > red + 30  # sky
        blue, _, red = frame[-3, 2].astype(int)
        assert red > blue + 30  # sand


def test_in_segmentation_mode_classes_have_the_colours(demo, clip):
    colors = colors_of_objects(demo(instances_at, ColorMode.SEGMENTATION), clip)
    assert np.abs(colors[0][0] - colors[1][0]).max() <= 6
    assert np.abs(colors[0][0] - colors[2][0]).max() > 25


def test_frames_without_objects_are_drawn(demo, clip):
    def nothing(t):
        empty = Instances(SIZE)
        empty.pred_masks = torch.zeros(0, *SIZE)
        empty.pred_classes = torch.zeros(0, dtype=torch.int64)
        empty.scores = torch.zeros(0)
        return {"instances": empty}

    frames = list(demo(nothing).run_on_video(cv2.VideoCapture(clip)))
    assert len(frames) == FRAMES
    assert frames[0].shape == (*SIZE, 3)


# --- the tracker alone


def test_another_class_at_the_same_place_is_another_object():
    tracks = ColorTracks()
    (first,) = tracks.assign([0], disc(100, 100)[None])
    (second,) = tracks.assign([1], disc(100, 100)[None])
    assert first != second


def test_a_lost_object_is_found_again_where_its_motion_took_it_and_forgotten_later():
    tracks = ColorTracks(memory=4)
    nothing = np.zeros((0, *SIZE), dtype=bool)
    for t in range(4):
        (color,) = tracks.assign([0], disc(40 + 20 * t, 100)[None])
    for _ in range(3):
        assert tracks.assign([], nothing) == []
    assert tracks.assign([0], disc(40 + 20 * 7, 100)[None]) == [color]
    for _ in range(5):
        tracks.assign([], nothing)
    assert tracks.assign([0], disc(40 + 20 * 7, 100)[None]) != [color]


def test_tiny_objects_of_large_frames_are_tracked():
    tracks = ColorTracks()
    first, second = np.zeros((2, 1, 1080, 1920), dtype=bool)
    first[0, 501:503, 700:702] = second[0, 502:504, 701:703] = True
    assert tracks.assign([0], first) == tracks.assign([0], second)


def test_colours_differ_while_there_are_enough():
    masks = np.zeros((90, 100, 100), dtype=bool)
    for i in range(90):
        masks[i, i, :] = True
    colors = ColorTracks().assign([0] * 90, masks)
    assert len(set(colors[:60])) == 60
    assert len(colors) == 90
