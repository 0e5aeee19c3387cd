"""The compiled steps of post-processing equal one line of PyTorch each."""

import pytest
import torch

from mask2former.modeling.postprocessing.instance import foreground
from mask2former.modeling.postprocessing.panoptic import winners
from mask2former.modeling.postprocessing.resize import resize_axis
from mask2former.ops import mask_strips, use_implementation

CPU = torch.device("cpu")


@pytest.fixture(params=[0, 1, 2], ids=["baseline", "avx2", "avx512"], autouse=True)
def instructions(request, strips_kernel):
    """Every instruction set that this machine has."""
    if strips_kernel.mask2former_cpu_instruction_set(request.param) != request.param:
        pytest.skip("not on this machine")
    yield
    strips_kernel.mask2former_cpu_instruction_set(-1)


def axis(source: int, padded: int, valid: int, output: int):
    return resize_axis(source, padded, valid, output, torch.float32, CPU)


def resized(masks, rows, columns, part, sigmoid=False):
    width = len(columns.weights)
    taps = rows.row_taps, columns.column_taps
    return mask_strips.resize(masks, *taps, part, width, sigmoid)


# source, padded, valid, output
AXES = {
    "up": (25, 100, 96, 200),
    "down": (25, 100, 96, 48),
    "much down": (200, 800, 799, 31),
    "twice down": (90, 40, 33, 20),
    "crop": (25, 100, 77, 77),
    "a pixel": (1, 4, 4, 9),
    "to a pixel": (16, 64, 64, 1),
    "of one": (16, 64, 1, 5),
}


@pytest.mark.parametrize("vertical", AXES.values(), ids=AXES)
@pytest.mark.parametrize("horizontal", AXES.values(), ids=AXES)
def test_resizing_equals_the_product_of_matrices(vertical, horizontal):
    rows, columns = axis(*vertical), axis(*horizontal)
    masks = torch.randn(3, vertical[0], horizontal[0], generator=torch.Generator().manual_seed(0))
    expected = (rows.weights.double() @ masks.double() @ columns.weights.double().T).float()
    for start in range(0, len(expected[0]), 7):
        part = slice(start, min(start + 7, len(expected[0])))
        found = resized(masks, rows, columns, part)
        torch.testing.assert_close(found, expected[:, part], rtol=1e-6, atol=2e-6)
        found = resized(masks, rows, columns, part, sigmoid=True)
        torch.testing.assert_close(found, expected[:, part].sigmoid(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_masks_may_lie_anyhow(count):
    rows, columns = axis(9, 36, 35, 50), axis(14, 56, 56, 33)
    base = torch.randn(14, 2 * count, 12)
    for masks in (base.permute(1, 2, 0)[::2, 2:11], base.permute(1, 2, 0)[:count, :9].contiguous()):
        expected = rows.weights @ masks @ columns.weights.T
        found = resized(masks, rows, columns, slice(0, 50))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_threads_do_not_matter():
    rows, columns = axis(40, 160, 160, 301), axis(40, 160, 150, 200)
    masks, part, before = torch.randn(3, 40, 40), slice(3, 300), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = resized(masks, rows, columns, part, sigmoid=True)
        torch.set_num_threads(4)
        assert torch.equal(resized(masks, rows, columns, part, sigmoid=True), expected)
    finally:
        torch.set_num_threads(before)


def test_the_sigmoid_is_as_good_as_float32_allows():
    logits = torch.cat([torch.linspace(-86, 30, 200_000), torch.linspace(-1e-3, 1e-3, 2001)])
    one = mask_strips.Taps(1, torch.zeros(1, dtype=torch.int32), torch.ones(1, 1))
    place = mask_strips.Taps(
        1, torch.arange(len(logits), dtype=torch.int32), torch.ones(len(logits), 1)
    )
    found = mask_strips.resize(
        logits[None, None], one, place.for_columns(), slice(0, 1), len(logits), True
    ).flatten()
    expected = logits.double().sigmoid()
    assert ((found - expected).abs() / expected).max() < 5e-7
    assert torch.equal(found >= 0.5, logits.sigmoid() >= 0.5)


def test_the_sigmoid_of_what_is_not_ordinary():
    logits = torch.tensor([float("nan"), 1e30, -1e30, float("inf"), -float("inf"), 0.0, -0.0])
    one = axis(1, 1, 1, 1)
    for value in logits:
        found = resized(value.view(1, 1, 1), one, one, slice(0, 1), sigmoid=True).item()
        torch.testing.assert_close(
            found, value.sigmoid().item(), equal_nan=True, rtol=0, atol=1e-37
        )


def probabilities(count: int, rows: int, width: int, seed: int = 0) -> torch.Tensor:
    """Some of them 0.5 exactly, and some equal to others."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 41, (count, rows, width), generator=generator) / 40


SIZES = [(1, 1), (3, 5), (4, 16), (7, 61), (24, 130)]


@pytest.mark.parametrize("size", SIZES)
def test_statistics_of_instances(size):
    rows, width = size
    probs, index = probabilities(9, rows, width), torch.tensor([1, 2, 5, 8])
    masks = torch.zeros(4, rows + 5, width, dtype=torch.bool)
    areas, confidence = torch.full((4,), 3.0), torch.full((4,), 2.0)
    part = slice(2, 2 + rows)
    mask_strips.foreground(probs, index, masks[:, part], areas, confidence)
    expected, expected_areas, expected_confidence = foreground(probs[index])
    assert torch.equal(masks[:, part], expected)
    assert masks.sum() == expected.sum()  # nothing beside the strip
    assert torch.equal(areas, 3.0 + expected_areas)
    torch.testing.assert_close(confidence, 2.0 + expected_confidence, rtol=1e-6, atol=1e-6)


def test_sums_of_large_masks_are_exact_enough():
    probs = 0.5 + 0.5 * torch.rand(1, 700, 1000, generator=torch.Generator().manual_seed(1))
    masks, areas, confidence = torch.zeros(1, 700, 1000).bool(), torch.zeros(1), torch.zeros(1)
    mask_strips.foreground(probs, torch.tensor([0]), masks, areas, confidence)
    wanted = probs[probs > 0.5].double().sum()
    assert abs(confidence.item() / wanted - 1) < 1e-7


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("index", [[3], [0, 1, 2, 3, 4, 5, 6, 7, 8], [1, 4, 7]])
def test_winners(size, index):
    probs, index = probabilities(9, *size, seed=2), torch.tensor(index)
    scores = torch.tensor([0.9, 0.8, 0.9, 1.0, 0.8, 0.85, 0.9, 0.9, -1.0])[index]
    winner, inside = torch.empty(size, dtype=torch.int16), torch.empty(size, dtype=torch.bool)
    areas = torch.ones(3, len(index), dtype=torch.int64)
    mask_strips.winners(probs, index, scores, winner, inside, areas)
    expected = winners(probs[index], scores[:, None, None])
    assert torch.equal(winner, expected[0])
    assert torch.equal(inside, expected[1])
    assert torch.equal(areas, 1 + expected[2])


@pytest.mark.parametrize("classes", [1, 5, 6, 17, 18, 24, 150])
@pytest.mark.parametrize("pixels", [1, 63, 64, 700])
@pytest.mark.parametrize("covered", [0.0, 0.5, 1.0])
def test_the_best_class(classes, pixels, covered):
    generator = torch.Generator().manual_seed(3)
    queries = 30
    by_class = 0.01 * torch.rand(classes, queries, generator=generator)
    sure = torch.randint(classes, (10,), generator=generator)
    by_class[sure, torch.arange(10)] = 0.9
    probs = 0.02 * torch.rand(queries, pixels, generator=generator)
    count = int(pixels * covered)
    probs[torch.randint(10, (count,), generator=generator), torch.arange(count)] = 0.9
    best = torch.empty(pixels, dtype=torch.int16)
    mask_strips.BestClass(by_class)(probs, best)
    scores = by_class.double() @ probs.double()
    reached = scores.gather(0, best[None].long())[0]
    assert (reached >= scores.amax(0) * (1 - 1e-6)).all()


def test_of_equal_scores_the_lower_class_wins():
    by_class = torch.zeros(40, 3)
    by_class[[30, 7, 33]] = 0.25  # exact sums
    best = torch.empty(50, dtype=torch.int16)
    kernel = mask_strips.BestClass(by_class)
    kernel(torch.full((3, 50), 0.5), best)
    assert (best == 7).all()
    kernel(torch.zeros(3, 50), best)
    assert (best == 0).all()


@pytest.mark.parametrize("classes", [1, 2, 40])
@pytest.mark.parametrize("size", SIZES)
def test_argmax_of_scores_takes_the_first(classes, size):
    scores = probabilities(classes, *size, seed=4) - 0.7
    best = mask_strips.argmax(scores)
    assert best.dtype == torch.int16
    assert torch.equal(best.long(), scores.max(0).indices)


def test_what_the_kernels_cannot_do_is_left_to_pytorch():
    values = torch.zeros(1)
    assert mask_strips.applies(values)
    assert not mask_strips.applies(values, values.double())
    assert not mask_strips.applies(values.to("meta"))
    assert not mask_strips.applies(values.clone().requires_grad_())
    with torch.no_grad():
        assert mask_strips.applies(values.clone().requires_grad_())
    with use_implementation("reference"):
        assert not mask_strips.applies(values)
