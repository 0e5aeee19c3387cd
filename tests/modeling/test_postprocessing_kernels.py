"""Post-processing by compiled kernels gives what the readable PyTorch code gives."""

import logging

import pytest
import torch

from mask2former.benchmark.networks.trained_like import trained_like
from mask2former.modeling.postprocessing import Frame, Settings, resize, segment
from mask2former.modeling.postprocessing.resize import strips
from mask2former.ops import implementation, libraries, use_implementation
from mask2former.ops.libraries import MASK_STRIPS, MissingLibrary, load

FRAMES = {
    "smaller": Frame((192, 256), (180, 250), (110, 151)),
    "larger": Frame((192, 256), (192, 256), (300, 411)),
    "cropped": Frame((192, 256), (150, 201), (150, 201)),
    "as they are": None,
}
ALL = {"semantic": True, "panoptic": True, "instance": True, "things": frozenset(range(50))}
SETTINGS = Settings(**ALL, object_mask_threshold=0.8, overlap_threshold=0.8, compact=True)


@pytest.fixture
def kernel():
    try:
        load("cpu", MASK_STRIPS)
    except MissingLibrary as error:
        pytest.skip(str(error))


def run(frame: Frame | None, mode: str, settings: Settings = SETTINGS, dtype=torch.float32):
    logits, masks = trained_like(40, 80, (48, 64))
    with use_implementation(mode):
        return segment(logits.to(dtype), masks.to(dtype), [frame], settings)[0]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("values", [1, 60_000, 1 << 21])
def test_maps_and_scores_are_the_same(monkeypatch, frame, values):
    monkeypatch.setitem(resize.STRIP_VALUES, "cpu", values)
    found, expected = run(frame, "kernel"), run(frame, "reference")
    labels, wanted = found["sem_seg"].argmax(0), expected["sem_seg"].argmax(0)
    assert (labels == wanted).float().mean() > 0.9999
    ids, segments = found["panoptic_seg"]
    assert segments == expected["panoptic_seg"][1] and len(segments) > 5
    assert (ids == expected["panoptic_seg"][0]).float().mean() > 0.9999
    ours, theirs = found["instances"], expected["instances"]
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-6, atol=1e-6)
    assert (ours.pred_masks == theirs.pred_masks).float().mean() > 0.9999


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_strips_are_the_same(frame, sigmoid):
    masks = torch.randn(48, 5, 64).transpose(0, 1)  # other than contiguous
    found = {}
    for mode in ("kernel", "reference"):
        with use_implementation(mode):
            parts = [part for _, part in strips(masks, frame, 0, sigmoid)]
            found[mode] = torch.cat(parts, dim=1)
    torch.testing.assert_close(found["kernel"], found["reference"], rtol=1e-5, atol=2e-6)


def test_double_precision_stays():
    masks = torch.randn(2, 12, 16, dtype=torch.float64)
    frame = Frame((48, 64), (48, 60), (31, 40))
    assert {part.dtype for _, part in strips(masks, frame)} == {torch.float64}
    found = run(FRAMES["smaller"], "auto", dtype=torch.float64)
    expected = run(FRAMES["smaller"], "reference", dtype=torch.float64)
    assert torch.equal(found["panoptic_seg"][0], expected["panoptic_seg"][0])
    torch.testing.assert_close(found["instances"].scores, expected["instances"].scores)


def test_without_a_library_pytorch_runs_and_says_so_once(monkeypatch, tmp_path, caplog):
    expected = run(FRAMES["smaller"], "reference")
    monkeypatch.setattr(libraries, "FOLDER", tmp_path)
    monkeypatch.setattr(implementation, "_already_said", set())
    libraries.load.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            found = run(FRAMES["smaller"], "auto")
    finally:
        libraries.load.cache_clear()
    assert torch.equal(found["panoptic_seg"][0], expected["panoptic_seg"][0])
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("Post-processing of masks on cpu runs in PyTorch")
    assert "libmask_strips_cpu.so has not been built" in message
