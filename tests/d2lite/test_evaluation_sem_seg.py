"""mIoU and its relatives against a plain computation per class."""

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

NAMES = ["sky", "grass", "never"]
IGNORE = 255


@pytest.fixture
def data(tmp_path):
    """Two images; their labels are (ground truth, prediction) pairs."""
    rng = np.random.default_rng(0)
    pairs, records = [], []
    for i, size in enumerate([(40, 60), (30, 50)]):
        gt = cv2.resize(rng.integers(0, 2, (4, 5), dtype=np.uint8), size, interpolation=0)
        pred = np.where(rng.random(gt.shape) < 0.2, 2, gt).astype(np.uint8)
        gt[:5, :7] = IGNORE
        path = tmp_path / f"{i}.png"
        Image.fromarray(gt).save(path)
        pairs.append((gt, pred))
        records.append({"file_name": f"image{i}.jpg", "sem_seg_file_name": str(path)})
    name = "eval_sem_seg_set"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        stuff_classes=NAMES,
        ignore_label=IGNORE,
        stuff_dataset_id_to_contiguous_id={10: 0, 20: 1, 30: 2},
    )
    yield name, pairs, records
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def one_hot(labels):
    labels = torch.from_numpy(labels.astype(np.int64))
    return torch.nn.functional.one_hot(labels, len(NAMES)).permute(2, 0, 1).float()


def evaluate(data, **kwargs):
    name, pairs, records = data
    evaluator = SemSegEvaluator(name, **kwargs)
    evaluator.reset()
    for record, (_, pred) in zip(records, pairs):
        evaluator.process([record], [{"sem_seg": one_hot(pred)}])
    return evaluator.evaluate()["sem_seg"]


def plain_metrics(pairs):
    """Per class, from pixels: (IoU, accuracy, share of the ground truth)."""
    gt = np.concatenate([g.ravel() for g, _ in pairs])
    pred = np.concatenate([p.ravel() for _, p in pairs])[gt != IGNORE]
    gt = gt[gt != IGNORE]
    rows = []
    for k in range(len(NAMES)):
        tp = ((gt == k) & (pred == k)).sum()
        rows.append(
            (tp / ((gt == k) | (pred == k)).sum(), tp / max(1, (gt == k).sum()), (gt == k).mean())
        )
    return rows, (gt == pred).mean()


def test_metrics_equal_a_plain_computation(data):
    result = evaluate(data)
    rows, pixel_accuracy = plain_metrics(data[1])
    present = rows[:2]  # "never" has no ground truth
    assert result["mIoU"] == pytest.approx(100 * np.mean([r[0] for r in present]))
    assert result["mACC"] == pytest.approx(100 * np.mean([r[1] for r in present]))
    assert result["fwIoU"] == pytest.approx(100 * sum(r[0] * r[2] for r in present))
    assert result["pACC"] == pytest.approx(100 * pixel_accuracy)
    assert result["IoU-grass"] == pytest.approx(100 * rows[1][0])
    assert result["ACC-sky"] == pytest.approx(100 * rows[0][1])
    assert np.isnan(result["IoU-never"]) and np.isnan(result["ACC-never"])


def test_keys_come_in_detectron2s_order(data):
    per_class = [f"{kind}-{n}" for n in NAMES for kind in ("IoU", "BoundaryIoU", "min(IoU, B-Iou)")]
    expected = ["mIoU", "fwIoU", *per_class, "mACC", "pACC", *[f"ACC-{n}" for n in NAMES]]
    assert list(evaluate(data)) == expected


def test_perfect_predictions_have_perfect_boundaries(data):
    name, pairs, records = data
    perfect = [(gt, np.where(gt == IGNORE, 0, gt)) for gt, _ in pairs]
    result = evaluate((name, perfect, records))
    assert result["mIoU"] == pytest.approx(100)
    assert result["BoundaryIoU-grass"] > 90  # the ignored corner has a boundary of its own


def test_the_file_of_predictions_has_dataset_ids_and_rles(data, tmp_path):
    evaluate(data, output_dir=str(tmp_path / "out"))
    entries = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert {e["category_id"] for e in entries} == {10, 20, 30}
    assert set(entries[0]) == {"file_name", "category_id", "segmentation"}
    assert isinstance(entries[0]["segmentation"]["counts"], str)
    saved = torch.load(tmp_path / "out" / "sem_seg_evaluation.pth", weights_only=False)
    assert "mIoU" in saved


def test_a_label_outside_of_the_classes_is_named_with_its_file(data):
    _, pairs, records = data
    gt = pairs[0][0].copy()
    gt[0, 0] = 7
    Image.fromarray(gt).save(records[0]["sem_seg_file_name"])
    with pytest.raises(ValueError, match=r"0\.png has labels from 0 to 7"):
        evaluate(data)


def test_a_prediction_of_another_size_is_named(data):
    name, _, records = data
    evaluator = SemSegEvaluator(name)
    evaluator.reset()
    with pytest.raises(ValueError, match=r"image0\.jpg"):
        evaluator.process([records[0]], [{"sem_seg": torch.rand(3, 4, 4)}])


def test_another_number_of_classes_is_refused(data):
    with pytest.raises(AssertionError, match="num_classes 5"):
        SemSegEvaluator(data[0], num_classes=5)
