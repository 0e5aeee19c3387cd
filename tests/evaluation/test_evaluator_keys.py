"""The keys of a config reach the evaluators that are built from it."""

import os

import pytest
from evaluation.small_sets import instances_set, panoptic_set, semantic_set

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from mask2former.config import add_maskformer2_config
from mask2former.evaluation import build_evaluator


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg


@pytest.fixture
def name(request):
    name = f"keys_{request.node.name}"
    yield name
    MetadataCatalog.remove(name)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)


@pytest.mark.parametrize("lvis", [False, True])
@pytest.mark.parametrize("corrupt", ["skip", "raise"])
@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
def test_engine_and_skipped_images_of_ap(engine, corrupt, lvis, cfg, name, tmp_path):
    instances_set(tmp_path, name, lvis=lvis)
    MetadataCatalog.get(name).evaluator_type = "lvis" if lvis else "coco"
    cfg.TEST.COCO_EVAL, cfg.TEST.ON_CORRUPT_IMAGE = engine, corrupt
    evaluator = build_evaluator(cfg, name)
    assert evaluator._engine == engine
    assert evaluator._only_seen == (corrupt == "skip")


def test_boundary_iou(cfg, name, tmp_path):
    semantic_set(tmp_path, name)
    MetadataCatalog.get(name).evaluator_type = "sem_seg"
    assert build_evaluator(cfg, name)._compute_boundary_iou
    cfg.TEST.BOUNDARY_IOU = False
    assert not build_evaluator(cfg, name)._compute_boundary_iou


def test_panoptic_details_and_dumped_predictions(cfg, name, tmp_path):
    pairs = panoptic_set(tmp_path, name)
    MetadataCatalog.get(name).evaluator_type = "coco_panoptic_seg"
    outputs = cfg.MODEL.MASK_FORMER.TEST
    outputs.SEMANTIC_ON, outputs.PANOPTIC_ON = False, True
    cfg.TEST.PANOPTIC_DETAILS = cfg.SAVE_PREDICTIONS = True
    cfg.SAVE_DIR, cfg.SAVE_DIR_NAME = str(tmp_path / "predictions"), "mine"
    evaluator = build_evaluator(cfg, name)
    assert isinstance(evaluator, DatasetEvaluators)
    evaluator.reset()
    for record, output in pairs:
        evaluator.process([record], [output])
    results = evaluator.evaluate()
    assert list(results) == ["panoptic_seg"]
    assert "Acc_th" in results["panoptic_seg"]
    assert len(os.listdir(tmp_path / "predictions/mine")) == 2 * len(pairs)


@pytest.mark.parametrize("applied", [False, True])
def test_intra_batch_supervision_reports_what_it_is_judged_by(cfg, name, tmp_path, applied):
    pairs = panoptic_set(tmp_path, name)
    MetadataCatalog.get(name).evaluator_type = "coco_panoptic_seg"
    outputs = cfg.MODEL.MASK_FORMER.TEST
    outputs.SEMANTIC_ON, outputs.PANOPTIC_ON = False, True
    cfg.MODEL.MASK_FORMER.APPLY_IBS = applied
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for record, output in pairs:
        evaluator.process([record], [output])
    keys = set(evaluator.evaluate()["panoptic_seg"])
    assert len(keys) == 9 or applied
    assert keys.issuperset({"Acc_th", "Prec_th"}) == applied


def test_without_panoptic_output_no_predictions_are_written(cfg, name, tmp_path):
    semantic_set(tmp_path, name)
    MetadataCatalog.get(name).evaluator_type = "sem_seg"
    cfg.SAVE_PREDICTIONS = True
    assert not isinstance(build_evaluator(cfg, name), DatasetEvaluators)
