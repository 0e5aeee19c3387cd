"""Composed resizing, strip by strip, equals resizing, cropping and resizing whole masks."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.postprocessing import resize
from mask2former.modeling.postprocessing.resize import Frame, strips


def in_two_steps(masks: torch.Tensor, frame: Frame) -> torch.Tensor:
    options = {"mode": "bilinear", "align_corners": False}
    padded = F.interpolate(masks[None], size=frame.padded, **options)
    valid = padded[..., : frame.valid[0], : frame.valid[1]]
    return F.interpolate(valid, size=frame.output, **options)[0]


def composed(masks: torch.Tensor, frame: Frame | None) -> torch.Tensor:
    return torch.cat([logits for _, logits in strips(masks, frame)], dim=1)


@pytest.mark.parametrize(
    "frame",
    [
        Frame((64, 96), (60, 90), (48, 72)),  # smaller output
        Frame((64, 96), (64, 96), (200, 301)),  # larger output
        Frame((64, 96), (51, 77), (51, 77)),  # crop only
        Frame((64, 96), (64, 96), (64, 96)),  # upsampling only
        Frame((64, 96), (33, 96), (7, 500)),  # one axis down, the other up
        Frame((64, 96), (1, 1), (5, 3)),
    ],
)
def test_equals_the_two_steps(frame):
    torch.manual_seed(0)
    masks = torch.randn(3, 16, 24)
    torch.testing.assert_close(composed(masks, frame), in_two_steps(masks, frame))


@pytest.mark.parametrize("values", [1, 700, 3000])
def test_the_height_of_strips_does_not_matter(monkeypatch, values):
    torch.manual_seed(0)
    masks, frame = torch.randn(3, 16, 24), Frame((64, 96), (60, 90), (48, 150))
    expected = composed(masks, frame)
    monkeypatch.setitem(resize.STRIP_VALUES, "cpu", values)
    rows = [rows for rows, _ in strips(masks, frame)]
    assert len(rows) > 1
    assert [r for s in rows for r in range(s.start, s.stop)] == list(range(48))
    torch.testing.assert_close(composed(masks, frame), expected)


def test_strips_are_bounded(monkeypatch):
    monkeypatch.setitem(resize.STRIP_VALUES, "cpu", 5000)
    masks, frame = torch.randn(10, 16, 24), Frame((64, 96), (64, 96), (640, 100))
    assert max(logits.numel() for _, logits in strips(masks, frame)) <= 5000


def test_without_a_frame_masks_are_as_they_are():
    masks = torch.randn(3, 16, 24)
    assert torch.equal(composed(masks, None), masks)


def test_half_precision_is_resized_in_float32():
    assert composed(torch.randn(1, 4, 4).bfloat16(), Frame((8, 8), (8, 8), (9, 9))).dtype == (
        torch.float32
    )


def test_no_mask_at_all():
    assert composed(torch.randn(0, 4, 4), Frame((16, 16), (16, 16), (9, 8))).shape == (0, 9, 8)
