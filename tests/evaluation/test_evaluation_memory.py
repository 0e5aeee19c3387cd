"""What an evaluator keeps does not grow with the number of images."""

import gc
import tracemalloc

import pytest

from mask2former.benchmark.evaluators.scenes import SCENES
from mask2former.evaluation import COCOEvaluator, COCOPanopticEvaluator, SemSegEvaluator

EVALUATORS = {
    "instances": COCOEvaluator,
    "semantic": SemSegEvaluator,
    "panoptic": COCOPanopticEvaluator,
}


@pytest.mark.parametrize("kind", EVALUATORS)
def test_python_memory_stays_flat(kind, tmp_path, monkeypatch):
    from mask2former.benchmark.evaluators import scenes

    monkeypatch.setattr(scenes, "SIZE", (48, 64))
    monkeypatch.setattr(scenes, "DETECTIONS", 8)
    images = 480
    pairs = SCENES[kind](tmp_path, images, f"memory_{kind}_{tmp_path.name}")
    evaluator = EVALUATORS[kind](f"memory_{kind}_{tmp_path.name}", output_dir=str(tmp_path / "out"))
    evaluator.reset()
    kept = []
    tracemalloc.start()
    try:
        for done, (record, output) in enumerate(pairs, start=1):
            evaluator.process([record], [output])
            # A block of the spool is full after every 16 images (of instances).
            if done % 80 == 0:
                gc.collect()  # cycles wait long for it in a process with many objects
                kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Dense masks would be 25 kB an image, their run lengths 2 kB, segments and counts 7 kB. A block
    # that is half full is allowed.
    assert (kept[-1] - kept[0]) / 400 < 700
