"""Tiles and their stitching: one tile changes nothing, many tiles join what belongs together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from mask2former.config import add_maskformer2_config
from mask2former.evaluation.coco_evaluation import InstanceSpool
from mask2former.inference.tiling import TiledModel, joining, tiled
from mask2former.inference.tiling.joining import Part, join
from mask2former.inference.tiling.plan import Box, plan_tiles
from mask2former.inference.tiling.results import BoxedMasks


class Blobs(nn.Module):
    """A "model" that knows the truth: pixels of value v > 0 are an object of class v % 3."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def forward(self, batched_inputs):
        return [self.one(**record) for record in batched_inputs]

    def one(self, image, height, width):
        self.largest = max(self.largest, image.shape[-2] * image.shape[-1])
        values = nn.functional.interpolate(image[None, :1], (height, width), mode="nearest")[0, 0]
        ids = torch.zeros(height, width, dtype=torch.int32)
        segments, masks, classes, scores = [], [], [], []
        for value in values.unique().int().tolist():
            if value == 0:
                continue
            # Pieces that a tile's border separates are different objects to the network.
            pieces, count = ndimage.label((values == value).numpy())
            for piece in range(1, count + 1):
                mask = torch.from_numpy(pieces == piece)
                segments.append(
                    {"id": len(segments) + 1, "isthing": True, "category_id": value % 3}
                )
                ids[mask] = len(segments)
                masks.append(mask.float())
                classes.append(value % 3)
                scores.append(0.5 + 0.01 * value)
        segments.append({"id": len(segments) + 1, "isthing": False, "category_id": 7})
        ids[values == 0] = len(segments)
        instances = Instances((height, width))
        instances.pred_masks = torch.stack(masks) if masks else torch.zeros(0, height, width)
        instances.scores = torch.tensor(scores)
        instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
        one_hot = nn.functional.one_hot(values.long() % 3, 3).permute(2, 0, 1).float()
        return {
            "panoptic_seg": (ids, segments),
            "instances": instances,
            "sem_seg": one_hot,
        }


def scene(height=150, width=210, objects=12, seed=0):
    """Squares that do not touch, each with a value of its own."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.float32)
    value = 1
    for _ in range(200):
        if value > objects:
            break
        side = rng.integers(8, 34)
        y, x = rng.integers(0, height - side), rng.integers(0, width - side)
        if image[max(y - 2, 0) : y + side + 2, max(x - 2, 0) : x + side + 2].any():
            continue
        image[y : y + side, x : x + side] = value
        value += 1
    return torch.from_numpy(image).expand(3, -1, -1).clone()


def run(image, size, overlap, output=None):
    model = Blobs()
    wrapped = TiledModel(model, size=size, overlap=overlap).eval()
    height, width = output or image.shape[-2:]
    (result,) = wrapped([{"image": image, "height": height, "width": width}])
    return result, model


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(20, 120), st.integers(20, 120)),
    st.integers(0, 19),
    st.sampled_from([0.5, 1.0, 1.7]),
)
@settings(max_examples=150, deadline=None)
def test_own_areas_cover_every_pixel_once_and_tiles_are_small(size, tile, overlap, scale):
    output = tuple(max(1, round(v * scale)) for v in size)
    tiles = plan_tiles(size, output, tile, overlap)
    count = np.zeros(output, int)
    for t in tiles:
        assert t.read.size[0] <= tile[0]
        assert t.read.size[1] <= tile[1]
        count[t.own.y0 : t.own.y1, t.own.x0 : t.own.x1] += 1
        inside = t.own.intersection(t.write)
        assert inside == t.own
    assert (count == 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_tiles_give_what_the_whole_image_gives(seed):
    image = scene(seed=seed)
    whole, _ = run(image, (400, 400), 40)
    parts, model = run(image, (80, 96), 40)
    assert model.largest <= 80 * 96
    ids, segments = parts["panoptic_seg"]
    expected, expected_segments = whole["panoptic_seg"]
    assert len(segments) == len(expected_segments)
    pairs = torch.stack([ids.flatten(), expected.flatten()]).unique(dim=1)
    assert pairs.shape[1] == len(segments)  # the same partition, numbered differently
    names = {s["id"]: (s["category_id"], s["isthing"]) for s in segments}
    names_expected = {s["id"]: (s["category_id"], s["isthing"]) for s in expected_segments}
    for mine, theirs in pairs.T.tolist():
        assert names[mine] == names_expected[theirs]
    torch.testing.assert_close(parts["sem_seg"].argmax(dim=0), whole["sem_seg"].argmax(dim=0))
    order = whole["instances"].scores.argsort(descending=True)
    masks = torch.stack(list(parts["instances"].pred_masks))
    torch.testing.assert_close(masks, whole["instances"].pred_masks[order])
    torch.testing.assert_close(parts["instances"].scores, whole["instances"].scores[order])


def test_one_tile_is_the_model_itself():
    image = scene()
    result, _ = run(image, (150, 210), 40)
    expected = Blobs()([{"image": image, "height": 150, "width": 210}])[0]
    assert isinstance(result["sem_seg"], torch.Tensor)
    torch.testing.assert_close(result["instances"].pred_masks, expected["instances"].pred_masks)


def test_the_output_may_have_another_resolution():
    image = scene()
    parts, _ = run(image, (80, 96), 40, output=(300, 420))
    ids, segments = parts["panoptic_seg"]
    assert ids.shape == (300, 420)
    assert len(segments) == len(run(image, (400, 400), 0)[0]["panoptic_seg"][1])


def test_neighbours_of_one_class_stay_apart():
    image = torch.zeros(3, 60, 160)
    image[:, 20:40, 40:80] = 3  # both of class 0, side by side, across the border at 80
    image[:, 20:40, 82:120] = 6
    result, _ = run(image, (60, 100), 40)
    assert len(result["panoptic_seg"][1]) == 3
    assert len(result["instances"]) == 2


def test_instances_can_be_filtered_like_others():
    result, _ = run(scene(), (80, 96), 40)
    instances = result["instances"]
    chosen = instances[instances.scores > 0.55]
    assert len(chosen) == int((instances.scores > 0.55).sum())
    torch.testing.assert_close(chosen.pred_masks[0], instances.pred_masks[0])
    boxes = instances.pred_boxes.tensor
    x0, y0, x1, y1 = boxes[0].int().tolist()
    mask = instances.pred_masks[0]
    assert mask[y0:y1, x0:x1].sum() == mask.sum()


def test_instances_can_be_evaluated_like_others(tmp_path):
    masks = torch.zeros(3, 9, 11)
    masks[0, 2:5, 3:9] = masks[1, 8, 10] = 1
    areas = [Box(2, 5, 3, 9), Box(8, 9, 10, 11), Box(0, 1, 0, 1)]
    parts = [m.bool().numpy()[area.inside(Box(0, 9, 0, 11))] for m, area in zip(masks, areas)]
    boxed = BoxedMasks(areas, parts, (9, 11))
    np.testing.assert_array_equal(np.asarray(boxed), masks.bool())
    encoded = []
    for form in (masks, boxed):
        instances = Instances((9, 11), pred_masks=form, pred_boxes=Boxes(torch.zeros(3, 4)))
        instances.scores, instances.pred_classes = torch.ones(3), torch.zeros(3, dtype=torch.long)
        spool = InstanceSpool()
        spool._output_dir, spool._distributed = str(tmp_path), False
        spool.reset()
        spool.process([{"image_id": 1}], [{"instances": instances}])
        encoded.append(list(spool._gathered()))
    assert encoded[0] == encoded[1]
    assert len(encoded[0][0]["instances"]) == 3


def test_a_model_in_evaluation_is_wrapped_in_evaluation():
    assert not TiledModel(Blobs().eval(), size=(9, 9), overlap=1).training


def test_the_config_decides():
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    model = Blobs()
    assert tiled(model, cfg) is model
    cfg.TEST.TILING.ENABLED = True
    assert isinstance(tiled(model, cfg), TiledModel)
    cfg.TEST.TILING.OVERLAP = 2000
    with pytest.raises(ValueError, match=r"OVERLAP 2000 must be at least 0 and less than"):
        tiled(model, cfg).eval()([{"image": torch.zeros(3, 1500, 10)}])


def test_joining_looks_at_overlapping_tiles_only(monkeypatch):
    tiles = [tile.write for tile in plan_tiles((10, 1000), (10, 1000), (10, 10), 1)]
    parts = [Part(i, 0, area, np.ones(area.size, bool)) for i, area in enumerate(tiles)]
    parts = [part for part in parts for _ in range(10)]
    compared = []
    monkeypatch.setattr(joining, "_fit", lambda *pair: compared.append(pair) or 0.0)
    intersection = Box.intersection
    monkeypatch.setattr(
        Box, "intersection", lambda *boxes: compared.append(boxes) or intersection(*boxes)
    )
    join(parts, tiles, 0.5)
    assert len(compared) < 0.1 * len(parts) ** 2 / 2
