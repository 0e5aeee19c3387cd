"""Semantic evaluation: numbers of detectron2, predictions on disk, boundary IoU by key."""

import json
import logging

import pytest
from evaluation.small_sets import run, semantic_set

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator as DetectronSemSegEvaluator
from mask2former.evaluation import EvaluationError, SemSegEvaluator


@pytest.fixture
def dataset(tmp_path):
    name = f"semantic_{tmp_path.name}"
    yield name, semantic_set(tmp_path, name)
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_results_and_files_equal_detectron2(dataset, tmp_path):
    name, pairs = dataset
    ours = run(SemSegEvaluator(name, output_dir=str(tmp_path / "ours")), pairs)
    theirs = run(DetectronSemSegEvaluator(name, output_dir=str(tmp_path / "theirs")), pairs)
    assert repr(ours) == repr(theirs)
    contents = [
        (tmp_path / who / "sem_seg_predictions.json").read_text() for who in ("ours", "theirs")
    ]
    assert contents[0] == contents[1]
    assert len(json.loads(contents[0])) > len(pairs)


def test_boundary_iou_can_be_left_out(dataset):
    name, pairs = dataset
    with_boundaries = run(SemSegEvaluator(name), pairs)["sem_seg"]
    without = run(SemSegEvaluator(name, boundary_iou=False), pairs)["sem_seg"]
    classes = [f"class {i}" for i in range(4)]
    ious, accuracies = [f"IoU-{c}" for c in classes], [f"ACC-{c}" for c in classes]
    assert list(without) == ["mIoU", "fwIoU", *ious, "mACC", "pACC", *accuracies]
    assert without == {k: v for k, v in with_boundaries.items() if k in without}
    assert "min(IoU, B-Iou)-class 1" in with_boundaries


def test_nothing_of_the_predictions_stays_in_memory(dataset, tmp_path):
    name, pairs = dataset
    evaluator = SemSegEvaluator(name, output_dir=str(tmp_path / "out"))
    evaluator.reset()
    for record, output in pairs:
        evaluator.process([record], [output])
        assert evaluator._predictions == []


def test_a_model_without_semantic_output_gives_no_score_aloud(dataset, caplog):
    name, pairs = dataset
    with caplog.at_level(logging.WARNING, logger="mask2former"):
        assert run(SemSegEvaluator(name), [(record, {}) for record, _ in pairs]) == {}
    assert "MODEL.MASK_FORMER.TEST.SEMANTIC_ON" in caplog.text


def test_an_image_that_is_not_in_the_data_set_is_named(dataset):
    name, [(record, output), *_] = dataset
    with pytest.raises(EvaluationError, match=f"/elsewhere.jpg was predicted, but {name} has no"):
        run(SemSegEvaluator(name), [({**record, "file_name": "/elsewhere.jpg"}, output)])
