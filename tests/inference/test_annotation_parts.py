"""Polygons against masks, proposals of all three tasks, deterministic batches."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mask2former.inference.annotation.polygons import (
    mask_to_polygons,
    overlap,
    polygons_to_mask,
)
from mask2former.inference.annotation.proposals import Proposal, ProposalOptions, proposals_of
from mask2former.inference.annotation.work_list import WorkItem, plan_batches


def blobs(seed: int, shape=(90, 120)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.normal(size=(1, 1, 9, 12)))
    return (torch.nn.functional.interpolate(coarse, shape, mode="bicubic")[0, 0] > 0.4).numpy()


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_polygons_with_holes_and_parts_fill_to_the_mask(seed):
    mask = blobs(seed)
    polygons = mask_to_polygons(mask, tolerance=0)
    assert overlap(mask, polygons_to_mask(polygons, *mask.shape)) > 0.97 or mask.sum() < 60


def test_a_hole_stays_a_hole():
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35] = True
    mask[12:28, 15:25] = False
    (polygon,) = mask_to_polygons(mask, tolerance=1)
    filled = polygons_to_mask([polygon], 40, 40)
    assert not filled[14:26, 17:23].any()
    assert overlap(mask, filled) > 0.97


def test_tolerance_trades_points_for_fit():
    mask = blobs(3)
    fine, coarse = (mask_to_polygons(mask, t) for t in (0.5, 4))
    assert sum(map(len, coarse)) < 0.6 * sum(map(len, fine))
    assert overlap(mask, polygons_to_mask(fine, *mask.shape)) > 0.95


def test_an_empty_mask_has_no_polygons():
    assert mask_to_polygons(np.zeros((4, 4))) == []


def metadata(**values):
    return SimpleNamespace(get=lambda key, default=None: values.get(key, default))


STUFF = metadata(thing_classes=["car"], stuff_classes=["sky", "car"])


def test_panoptic_segments_are_named_by_the_whole_list():
    ids = torch.tensor([[1, 1, 0], [2, 2, 0]])
    segments = [
        {"id": 1, "category_id": 0, "isthing": False},
        {"id": 2, "category_id": 1, "isthing": True},
    ]
    found, unsure = proposals_of({"panoptic_seg": (ids, segments)}, STUFF, ProposalOptions())
    assert [(p.label, p.mask.rle) for p in found] == [("sky", "0, 2"), ("car", "0, 2")]
    assert unsure == pytest.approx(1 / 3)


def test_semantic_maps_give_one_region_a_class():
    scores = torch.tensor([[[0.9, 0.5]], [[0.1, 0.6]]])
    found, unsure = proposals_of({"sem_seg": scores}, STUFF, ProposalOptions())
    assert [p.label for p in found] == ["sky", "car"]
    assert unsure == pytest.approx(((1 - 0.9) + (1 - 0.6 / 1.1)) / 2)


def test_a_task_the_model_lacks_is_named():
    with pytest.raises(ValueError, match=r"semantic output, not panoptic: set MODEL.*PANOPTIC_ON"):
        proposals_of({"sem_seg": torch.zeros(2, 1, 1)}, STUFF, ProposalOptions(task="panoptic"))


def test_proposals_survive_json():
    found, _ = proposals_of(
        {"sem_seg": torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0))},
        STUFF,
        ProposalOptions(),
    )
    assert [Proposal.from_json(p.to_json()) for p in found] == found


def test_batches_hold_one_size_and_few_pixels():
    sizes = [(10, 10), (20, 10), (10, 10), (10, 10), (100, 100), (10, 10)]
    items = [WorkItem(i, str(i), str(i), Path(), *size, False) for i, size in enumerate(sizes)]
    batches = list(plan_batches(items, batch_size=3, max_pixels=5000))
    assert [[i.number for i in b] for b in batches] == [[0, 2, 3], [4], [1], [5]]


def test_a_mask_too_small_for_the_tolerance_keeps_an_outline():
    mask = np.zeros((20, 20), dtype=bool)
    mask[7:9, 4:6] = True
    (outline,) = mask_to_polygons(mask, tolerance=5.0)
    assert polygons_to_mask([outline], 20, 20)[7:9, 4:6].all()


def test_specks_beside_an_object_are_left_out_but_real_parts_stay():
    mask = np.zeros((60, 60), dtype=bool)
    mask[5:35, 5:35] = mask[40:55, 40:50] = True  # 900 and 150 pixels
    mask[50:53, 5:8] = True  # 9
    assert len(mask_to_polygons(mask, tolerance=1)) == 3
    kept = mask_to_polygons(mask, tolerance=1, least_part=0.05)
    assert len(kept) == 2
    assert overlap(mask, polygons_to_mask(kept, 60, 60)) > 0.95
