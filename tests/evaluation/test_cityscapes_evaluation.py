"""Counting as predictions come gives the numbers of cityscapesscripts, which reads files."""

import contextlib
import copy
import importlib
import io
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import name2label, trainId2label
from evaluation.small_sets import cityscapes_set, run
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from mask2former.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    EvaluationError,
)
from mask2former.evaluation.legacy_numpy import give_legacy_numpy


@pytest.fixture
def dataset(tmp_path):
    name = f"cityscapes_{tmp_path.name}"
    yield name, cityscapes_set(tmp_path, name)
    MetadataCatalog.remove(name)


def official(script: str, predictions: Path):
    """A module of the scripts and its arguments, reading from ``predictions``."""
    module = importlib.import_module(f"cityscapesscripts.evaluation.{script}")
    give_legacy_numpy(module)
    args = copy.copy(module.args)
    args.predictionPath, args.predictionWalk = str(predictions), None
    args.JSONOutput, args.quiet, args.colorized = False, True, False
    args.gtInstancesFile = str(predictions / "gtInstances.json")
    return module, args


def ground_truth(name: str, ending: str) -> list[str]:
    return sorted(map(str, Path(MetadataCatalog.get(name).gt_dir).glob(f"*/*{ending}")))


def test_semantic_scores_equal_the_scripts(dataset, tmp_path):
    name, pairs = dataset
    folder = tmp_path / "predictions"
    folder.mkdir()
    to_id = np.array([trainId2label[i].id for i in range(19)], np.uint8)
    for record, output in pairs:
        labels = to_id[output["sem_seg"].argmax(0).numpy()]
        Image.fromarray(labels).save(folder / f"{Path(record['file_name']).stem}_pred.png")
    module, args = official("evalPixelLevelSemanticLabeling", folder)
    truth = ground_truth(name, "labelIds.png")
    expected = module.evaluateImgLists([module.getPrediction(args, p) for p in truth], truth, args)
    ours = run(CityscapesSemSegEvaluator(name), pairs)["sem_seg"]
    assert 5 < ours["IoU"] < 95
    assert ours == {
        "IoU": 100 * expected["averageScoreClasses"],
        "iIoU": 100 * expected["averageScoreInstClasses"],
        "IoU_sup": 100 * expected["averageScoreCategories"],
        "iIoU_sup": 100 * expected["averageScoreInstCategories"],
    }


def test_instance_scores_equal_the_scripts(dataset, tmp_path):
    name, pairs = dataset
    folder = tmp_path / "predictions"
    folder.mkdir()
    classes = MetadataCatalog.get(name).thing_classes
    for record, output in pairs:
        stem, found, lines = Path(record["file_name"]).stem, output["instances"], []
        for i, mask in enumerate(found.pred_masks.numpy()):
            Image.fromarray((mask * 255).astype(np.uint8)).save(folder / f"{stem}_{i}.png")
            label = name2label[classes[int(found.pred_classes[i])]].id
            lines.append(f"{stem}_{i}.png {label} {found.scores[i].item()}\n")
        (folder / f"{stem}_pred.txt").write_text("".join(lines))
    module, args = official("evalInstanceLevelSemanticLabeling", folder)
    truth = ground_truth(name, "instanceIds.png")
    predictions = [module.getPrediction(p, args) for p in truth]
    module.setInstanceLabels(args)
    instances = module.getGtInstances(truth, args)
    with contextlib.redirect_stdout(io.StringIO()):
        matches = module.matchGtWithPreds(predictions, truth, instances, args)
    expected = module.computeAverages(module.evaluateMatches(matches, args), args)
    ours = run(CityscapesInstanceEvaluator(name), pairs)["segm"]
    assert 5 < ours["AP"] < 95
    assert ours == {"AP": 100 * expected["allAp"], "AP50": 100 * expected["allAp50%"]}


def test_the_scripts_tables_are_logged(dataset, caplog):
    name, pairs = dataset
    with caplog.at_level(logging.INFO, logger="mask2former"):
        run(CityscapesSemSegEvaluator(name), pairs)
        run(CityscapesInstanceEvaluator(name), pairs)
    assert "classes          IoU      nIoU" in caplog.text
    assert "AP_50%" in caplog.text


def test_frames_that_were_not_predicted_are_refused_unless_skipping_is_configured(dataset):
    name, pairs = dataset
    with pytest.raises(
        EvaluationError, match=r"1 of 5 frames .* the first is aachen_000000_000019"
    ):
        run(CityscapesSemSegEvaluator(name), pairs[1:])
    assert run(CityscapesSemSegEvaluator(name, allow_missing=True), pairs[1:])["sem_seg"]["IoU"] > 0


def test_unknown_frames_and_wrong_sizes_are_named(dataset):
    name, pairs = dataset
    (record, output), *_ = pairs
    with pytest.raises(EvaluationError, match="ulm_000001_000019_gtFine_labelIds"):
        run(CityscapesSemSegEvaluator(name), [({"file_name": "/ulm_000001_000019_x.png"}, output)])
    smaller = {"sem_seg": output["sem_seg"][:, 1:]}
    with pytest.raises(EvaluationError, match="is 63x96 pixels, the ground truth 64x96"):
        run(CityscapesSemSegEvaluator(name), [(record, smaller)])


def test_a_folder_without_ground_truth_is_named(dataset, tmp_path):
    name, _ = dataset
    shutil.rmtree(MetadataCatalog.get(name).gt_dir)
    with pytest.raises(EvaluationError, match=r"gtFine_instanceIds\.png"):
        CityscapesInstanceEvaluator(name)


def test_outputs_without_the_task_give_no_score(dataset, caplog):
    name, pairs = dataset
    without = [(record, {"sem_seg": output["sem_seg"]}) for record, output in pairs]
    assert run(CityscapesInstanceEvaluator(name), without) == {}
    assert "Did not receive valid predictions" in caplog.text


def test_predictions_that_all_lie_on_regions_that_do_not_count_score_zero(tmp_path):
    name = f"cityscapes_{tmp_path.name}"
    (tmp_path / "gt" / "ulm").mkdir(parents=True)
    truth = np.zeros((40, 60), np.uint16)  # unlabeled, which is not evaluated
    truth[:, 30:] = 1000 * name2label["car"].id
    Image.fromarray(truth).save(
        tmp_path / "gt" / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png"
    )
    MetadataCatalog.get(name).set(gt_dir=str(tmp_path / "gt"), thing_classes=["person", "car"])
    masks = torch.zeros(2, 40, 60)
    masks[0, :, :20] = 1
    masks[1, :, 30:] = 1
    found = Instances((40, 60), pred_masks=masks, scores=torch.tensor([0.9, 0.8]))
    found.pred_classes = torch.tensor([1, 1])
    record = {"file_name": "/left/ulm_000000_000019_leftImg8bit.png"}
    evaluator = CityscapesInstanceEvaluator(name)
    assert run(evaluator, [(record, {"instances": found[:1]})])["segm"]["AP"] == 0
    assert run(evaluator, [(record, {"instances": found})])["segm"]["AP"] == 100
    MetadataCatalog.remove(name)
