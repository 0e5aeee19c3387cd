"""Semantic, panoptic and instance results equal straightforward loops over whole masks."""

import pytest
import torch
from torch import Tensor

from detectron2.structures import BitMasks
from mask2former.modeling.postprocessing import Frame, Settings, resize, segment
from mask2former.modeling.postprocessing.best_class import BestClass
from mask2former.modeling.postprocessing.instance import tight_boxes

QUERIES, CLASSES, HEIGHT, WIDTH = 12, 5, 21, 34
THINGS = {0, 2}


def logits_and_masks(seed: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Like a trained model's: confident classes (some void) and smooth, overlapping masks."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(CLASSES + 1, (batch, QUERIES), generator=generator)
    logits = torch.randn(batch, QUERIES, CLASSES + 1, generator=generator)
    logits.scatter_add_(2, classes[..., None], torch.full((batch, QUERIES, 1), 3.0))
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    centre = torch.rand(2, batch, QUERIES, 1, 1, generator=generator)
    radius = 3 + 9 * torch.rand(batch, QUERIES, 1, 1, generator=generator)
    distance = ((y - centre[0] * HEIGHT) ** 2 + (x - centre[1] * WIDTH) ** 2).sqrt()
    masks = radius - distance + 0.3 * torch.randn(distance.shape, generator=generator)
    return logits, masks


def run(logits: Tensor, masks: Tensor, frame: Frame | None = None, **options) -> dict:
    settings = Settings(things=THINGS, **options)
    (result,) = segment(logits, masks, [frame], settings)
    return result


def panoptic_loop(
    logits: Tensor, masks: Tensor, threshold: float, overlap: float
) -> tuple[Tensor, list[dict]]:
    """One query after another, as published in words (contract, section 20.6)."""
    scores, labels = logits.softmax(-1).max(-1)
    kept = [q for q in range(QUERIES) if labels[q] != CLASSES and scores[q] > threshold]
    panoptic, segments = torch.zeros(masks.shape[-2:], dtype=torch.int32), []
    if not kept:
        return panoptic, segments
    probs = masks[kept].sigmoid()
    winner = (scores[kept][:, None, None] * probs).argmax(0)
    stuff_ids = {}
    for rank, query in enumerate(kept):
        category = labels[query].item()
        won, own = winner == rank, probs[rank] >= 0.5
        painted = won & own
        if won.sum() == 0 or own.sum() == 0 or painted.sum() == 0:
            continue
        if won.sum().item() / own.sum().item() < overlap:
            continue
        if category not in THINGS and category in stuff_ids:
            panoptic[painted] = stuff_ids[category]
            continue
        segments.append(
            {"id": len(segments) + 1, "isthing": category in THINGS, "category_id": category}
        )
        panoptic[painted] = len(segments)
        if category not in THINGS:
            stuff_ids[category] = len(segments)
    return panoptic, segments


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_panoptic_equals_the_loop(monkeypatch, seed, overlap):
    monkeypatch.setitem(resize.STRIP_VALUES, "cpu", 1500)  # several strips
    logits, masks = logits_and_masks(seed)
    options = {"object_mask_threshold": 0.6, "overlap_threshold": overlap}
    panoptic, segments = run(logits, masks, panoptic=True, **options)["panoptic_seg"]
    expected, expected_segments = panoptic_loop(logits[0], masks[0], 0.6, overlap)
    assert panoptic.dtype == torch.int32
    assert torch.equal(panoptic, expected)
    assert segments == expected_segments


def test_the_random_cases_cover_drops_and_merged_stuff():
    merged = dropped = 0
    for seed in range(25):
        logits, masks = logits_and_masks(seed)
        strict, loose = (panoptic_loop(logits[0], masks[0], 0.6, t)[1] for t in (0.8, 0.0))
        dropped += len(loose) - len(strict)
        scores, labels = logits[0].softmax(-1).max(-1)
        merged += sum(scores[labels == c].gt(0.6).sum() > 1 for c in (1, 3, 4))
    assert dropped > 25
    assert merged > 5


def test_panoptic_without_a_kept_query_is_empty():
    logits, masks = logits_and_masks(0)
    panoptic, segments = run(logits, masks, panoptic=True, object_mask_threshold=1.0)[
        "panoptic_seg"
    ]
    assert segments == []
    assert panoptic.shape == (HEIGHT, WIDTH)
    assert not panoptic.any()


def test_threshold_of_panoptic_is_strict():
    logits, masks = torch.zeros(1, 1, 2), torch.ones(1, 1, 4, 4)
    logits[0, 0, 1] = -1e4  # the class has probability 1, exactly
    for threshold, count in ((1.0, 0), (0.999, 1)):
        options = {"panoptic": True, "object_mask_threshold": threshold}
        assert len(run(logits, masks, **options)["panoptic_seg"][1]) == count


def test_semantic_scores_are_class_times_mask_probabilities(monkeypatch):
    monkeypatch.setitem(resize.STRIP_VALUES, "cpu", 1500)
    logits, masks = logits_and_masks(1)
    expected = torch.einsum("qc,qhw->chw", logits[0].softmax(-1)[:, :-1], masks[0].sigmoid())
    torch.testing.assert_close(run(logits, masks, semantic=True)["sem_seg"], expected)


def test_instances_are_the_best_pairs_rescored_and_sorted(monkeypatch):
    monkeypatch.setitem(resize.STRIP_VALUES, "cpu", 1500)
    logits, masks = logits_and_masks(2)
    instances = run(logits, masks, instance=True, topk=20)["instances"]

    probs = logits[0].softmax(-1)[:, :-1]
    expected = []
    for pair in probs.flatten().topk(20).indices.tolist():
        query, category = divmod(pair, CLASSES)
        mask = masks[0, query] > 0
        inside = (masks[0, query].sigmoid() * mask).sum() / (mask.sum() + 1e-6)
        expected.append(((probs[query, category] * inside).item(), category, mask))
    expected.sort(key=lambda item: -item[0])

    assert instances.image_size == (HEIGHT, WIDTH)
    torch.testing.assert_close(instances.scores, torch.tensor([e[0] for e in expected]))
    assert instances.pred_classes.tolist() == [e[1] for e in expected]
    assert instances.pred_masks.dtype == torch.float32
    assert torch.equal(instances.pred_masks, torch.stack([e[2] for e in expected]).float())


def test_boxes_are_tight_around_the_masks():
    logits, masks = logits_and_masks(3)
    instances = run(logits, masks, instance=True, topk=30)["instances"]
    expected = BitMasks(instances.pred_masks.bool()).get_bounding_boxes().tensor
    assert torch.equal(instances.pred_boxes.tensor, expected)


def test_tight_boxes_of_empty_full_and_single_pixel_masks():
    masks = torch.zeros(4, 5, 6, dtype=torch.bool)
    masks[1] = True
    masks[2, 4, 5] = True
    masks[3, 1:3, 2:4] = True
    expected = [[0, 0, 0, 0], [0, 0, 6, 5], [5, 4, 6, 5], [2, 1, 4, 3]]
    assert tight_boxes(masks).tolist() == expected


def test_asking_for_more_instances_than_there_are_pairs_gives_all_pairs():
    logits, masks = logits_and_masks(0)
    assert len(run(logits, masks, instance=True, topk=10_000)["instances"]) == QUERIES * CLASSES


def test_only_things_can_be_asked_for():
    logits, masks = logits_and_masks(0)
    options = {"instance": True, "topk": 30}
    everything = run(logits, masks, **options)["instances"]
    things = run(logits, masks, only_things=True, **options)["instances"]
    kept = torch.isin(everything.pred_classes, torch.tensor(sorted(THINGS)))
    assert 0 < kept.sum() < 30
    assert torch.equal(things.scores, everything.scores[kept])
    assert torch.equal(things.pred_masks, everything.pred_masks[kept])


def test_no_thing_among_the_best_gives_no_instances():
    logits, masks = logits_and_masks(0)
    logits[..., sorted(THINGS)] = -1e4
    instances = run(logits, masks, instance=True, topk=5, only_things=True)["instances"]
    assert len(instances) == 0
    assert instances.pred_masks.shape == (0, HEIGHT, WIDTH)
    assert instances.pred_boxes.tensor.shape == (0, 4)


def test_tasks_together_and_in_a_batch_equal_each_alone():
    logits, masks = logits_and_masks(4, batch=3)
    options = {"object_mask_threshold": 0.5, "overlap_threshold": 0.5, "topk": 15}
    options |= {"things": THINGS}
    frames = [Frame((80, 136), (75, 120), (40 + i, 60 - i)) for i in range(3)]
    tasks = {"semantic": "sem_seg", "panoptic": "panoptic_seg", "instance": "instances"}
    together = segment(logits, masks, frames, Settings(**dict.fromkeys(tasks, True), **options))
    for i, frame in enumerate(frames):
        alone = {}
        for task in tasks:
            settings = Settings(**{task: True}, **options)
            alone |= segment(logits[i : i + 1], masks[i : i + 1], [frame], settings)[0]
        assert set(alone) == set(together[i]) == set(tasks.values())
        torch.testing.assert_close(together[i]["sem_seg"], alone["sem_seg"])
        assert torch.equal(together[i]["panoptic_seg"][0], alone["panoptic_seg"][0])
        assert together[i]["panoptic_seg"][1] == alone["panoptic_seg"][1]
        instances, expected = together[i]["instances"], alone["instances"]
        torch.testing.assert_close(instances.scores, expected.scores)
        assert torch.equal(instances.pred_masks, expected.pred_masks)


@pytest.mark.gpu
def test_a_batch_copies_to_the_host_twice():
    logits, masks = (x.cuda() for x in logits_and_masks(4, batch=3))
    frames = [Frame((80, 136), (75, 120), (40, 60))] * 3
    settings = Settings(semantic=True, panoptic=True, instance=True, things=THINGS)
    segment(logits, masks, frames, settings)  # fills the cache of resizing matrices
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning) as warnings:
            segment(logits, masks, frames, settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in warnings if "synchronizing" in str(w.message)]) <= 2


@pytest.mark.parametrize("frame", [None, Frame((84, 136), (80, 131), (61, 97))])
def test_compact_outputs_are_the_same_labels_and_masks(frame):
    logits, masks = logits_and_masks(5)
    tasks = dict(semantic=True, panoptic=True, instance=True, topk=20)
    full, compact = (run(logits, masks, frame, compact=c, **tasks) for c in (False, True))
    labels = compact["sem_seg"].argmax(dim=0)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, full["sem_seg"].argmax(dim=0))
    assert compact["sem_seg"].shape == full["sem_seg"].shape
    assert torch.equal(compact["panoptic_seg"][0], full["panoptic_seg"][0])
    assert compact["instances"].pred_masks.dtype == torch.bool
    assert torch.equal(compact["instances"].pred_masks.float(), full["instances"].pred_masks)
    assert torch.equal(compact["instances"].scores, full["instances"].scores)


@pytest.mark.parametrize("size", [(40, 65), (131, 190), (80, 131), (200, 50)])
@pytest.mark.parametrize("strip", [1, 2000, 1 << 20])
def test_labels_of_resized_scores_equal_the_published_order(monkeypatch, size, strip):
    """Scores are made at the size of the input, resized to the output, then compared."""
    monkeypatch.setitem(resize.STRIP_VALUES, "cpu", strip)
    logits, masks = logits_and_masks(6)
    frame = Frame((84, 136), (80, 131), (80, 131))
    settings = Settings(semantic=True)
    (full,) = segment(logits, masks, [frame], settings, [size])
    (compact,) = segment(logits, masks, [frame], Settings(semantic=True, compact=True), [size])
    assert full["sem_seg"].shape == (CLASSES, *size) == tuple(compact["sem_seg"].shape)
    wanted = full["sem_seg"].argmax(dim=0)
    assert (compact["sem_seg"].argmax(dim=0) == wanted).float().mean() > 0.9999


def test_label_scores_know_only_the_best_class():
    (result,) = segment(*logits_and_masks(7), [None], Settings(semantic=True, compact=True))
    scores = result["sem_seg"]
    assert len(scores) == CLASSES and scores.argmax(0, keepdim=True).shape == (1, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="dim=0"):
        scores.argmax(dim=1)


class TestBestClass:
    """Pruned classes never win."""

    @pytest.fixture
    def by_class(self):
        """133 classes of 100 queries, some of which are sure of theirs."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(100, 134, generator=generator, dtype=torch.float64)
        logits[torch.arange(18), torch.randint(133, (18,), generator=generator)] += 9
        logits[18:, -1] += 8
        return logits.softmax(-1)[:, :-1].T.contiguous()

    @pytest.mark.parametrize("covered", [0.0, 0.3, 0.8, 1.0])
    def test_it_equals_argmax_whatever_share_is_covered(self, by_class, covered):
        generator = torch.Generator().manual_seed(1)
        probs = 0.02 * torch.rand(100, 3000, generator=generator, dtype=torch.float64)
        count = int(3000 * covered)
        owner = torch.randint(18, (count,), generator=generator)
        probs[owner, torch.arange(count)] = 0.5 + 0.5 * torch.rand(
            count, generator=generator, dtype=torch.float64
        )
        assert torch.equal(BestClass(by_class)(probs), (by_class @ probs).argmax(0))

    def test_where_classes_are_few_all_are_compared(self):
        assert BestClass(torch.rand(19, 5)).first is None

    def test_scores_of_nothing_are_the_first_class(self, by_class):
        assert BestClass(by_class)(torch.zeros(100, 4, dtype=torch.float64)).tolist() == [0] * 4
