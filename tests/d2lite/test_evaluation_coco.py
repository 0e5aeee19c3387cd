"""COCO's AP on a data set small enough to know the answers."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import (
    _evaluate_predictions_on_coco,
    instances_to_coco_json,
)
from detectron2.structures import Boxes, Instances

SIZE = (64, 80)
# (image, dataset category, x, y, w, h)
OBJECTS = [(1, 5, 10, 10, 20, 30), (1, 9, 40, 5, 30, 30), (2, 5, 0, 0, 64, 40)]


def rectangle(x, y, w, h):
    mask = np.zeros(SIZE, np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


@pytest.fixture
def dataset(tmp_path):
    annotations = []
    for i, (image, category, x, y, w, h) in enumerate(OBJECTS, start=1):
        rle = mask_util.encode(np.asfortranarray(rectangle(x, y, w, h)))
        annotations.append(
            {
                "id": i,
                "image_id": image,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": {**rle, "counts": rle["counts"].decode()},
            }
        )
    content = {
        "info": {},
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    name = "eval_coco_set"
    MetadataCatalog.get(name).set(
        json_file=str(path),
        thing_classes=["cat", "dog"],
        thing_dataset_id_to_contiguous_id={5: 0, 9: 1},
    )
    yield name
    MetadataCatalog.remove(name)


def detections(image, objects=OBJECTS):
    mine = [o for o in objects if o[0] == image]
    result = Instances(SIZE)
    boxes = [[x, y, x + w, y + h] for _, _, x, y, w, h in mine]
    result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    result.scores = torch.linspace(0.9, 0.5, len(mine))
    result.pred_classes = torch.tensor([{5: 0, 9: 1}[o[1]] for o in mine], dtype=torch.int64)
    masks = [rectangle(*o[2:]) for o in mine] or np.zeros((0, *SIZE))
    result.pred_masks = torch.as_tensor(np.array(masks)).float()
    return result


def evaluate(name, objects=OBJECTS, **kwargs):
    evaluator = COCOEvaluator(name, **kwargs)
    evaluator.reset()
    for image in (1, 2):
        evaluator.process([{"image_id": image}], [{"instances": detections(image, objects)}])
    return evaluator.evaluate()


def test_perfect_predictions_score_one_hundred(dataset):
    results = evaluate(dataset)
    assert list(results) == ["bbox", "segm"]
    for task in results.values():
        assert list(task) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"]
        assert task["AP"] == pytest.approx(100)
        assert np.isnan(task["APl"])  # nothing in the set is that large


def test_a_missed_class_scores_zero(dataset):
    results = evaluate(dataset, [o for o in OBJECTS if o[1] == 5])
    assert results["segm"]["AP-dog"] == 0
    assert results["segm"]["AP"] == pytest.approx(50)


def test_tasks_and_images_can_be_chosen(dataset):
    assert list(evaluate(dataset, tasks=("segm",))) == ["segm"]
    evaluator = COCOEvaluator(dataset)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": detections(1)}])
    assert evaluator.evaluate(img_ids=[1])["bbox"]["AP"] == pytest.approx(100)


def test_images_can_be_scored_again_without_predicting_again(dataset):
    evaluator = COCOEvaluator(dataset)
    evaluator.reset()
    for image in (1, 2):
        evaluator.process([{"image_id": image}], [{"instances": detections(image)}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    assert evaluator.evaluate(img_ids=[2])["bbox"]["AP"] == pytest.approx(100)


def test_the_result_files_have_dataset_ids(dataset, tmp_path):
    evaluate(dataset, output_dir=str(tmp_path / "out"))
    entries = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert sorted(e["category_id"] for e in entries) == [5, 5, 9]
    assert entries[0]["bbox"] == [10, 10, 20, 30]
    assert set(entries[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert (tmp_path / "out" / "instances_predictions.pth").exists()


def test_masks_are_kept_run_length_encoded(dataset):
    evaluator = COCOEvaluator(dataset)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": detections(1)}])
    (stored,) = evaluator._predictions
    assert not any(isinstance(v, torch.Tensor) for e in stored["instances"] for v in e.values())


def test_encoding_gives_the_masks_back_and_ignores_groups(monkeypatch):
    masks = torch.rand(7, 33, 47) > 0.6
    instances = Instances((33, 47))
    instances.pred_boxes = Boxes(torch.zeros(7, 4))
    instances.scores, instances.pred_classes = torch.ones(7), torch.zeros(7, dtype=torch.int64)
    instances.pred_masks = masks
    for limit in (1, 1 << 26):
        monkeypatch.setattr("detectron2.evaluation._coco_json.ENCODE_BYTES", limit)
        entries = instances_to_coco_json(instances, 3)
        decoded = [mask_util.decode(e["segmentation"]) for e in entries]
        assert np.array_equal(np.stack(decoded).astype(bool), masks.numpy())


def test_keypoints_are_moved_to_pixel_centres():
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.zeros(1, 4))
    instances.scores, instances.pred_classes = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    instances.pred_keypoints = torch.tensor([[[10.5, 20.5, 0.9]]])
    (entry,) = instances_to_coco_json(instances, 1)
    assert entry["keypoints"] == pytest.approx([10, 20, 0.9])


def test_no_prediction_at_all_is_a_warning(dataset, caplog):
    evaluator = COCOEvaluator(dataset)
    evaluator.reset()
    assert evaluator.evaluate() == {}
    assert "valid predictions" in caplog.text


def test_empty_predictions_give_nan(dataset):
    results = evaluate(dataset, objects=[])
    assert np.isnan(results["bbox"]["AP"])


def test_a_class_outside_of_the_set_is_named(dataset):
    evaluator = COCOEvaluator(dataset)
    evaluator.reset()
    wrong = detections(1)
    wrong.pred_classes[0] = 7
    evaluator.process([{"image_id": 1}], [{"instances": wrong}])
    with pytest.raises(AssertionError, match=r"class 7.*only 2 classes"):
        evaluator.evaluate()


def test_a_set_without_annotations_only_writes_the_file(dataset, tmp_path, caplog):
    path = Path(MetadataCatalog.get(dataset).json_file)
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    with caplog.at_level("INFO"):
        assert evaluate(dataset, output_dir=str(tmp_path / "out")) == {}
    assert "Annotations are not available for evaluation." in caplog.text
    assert (tmp_path / "out" / "coco_instances_results.json").exists()


def test_the_private_helper_takes_both_spellings_of_its_option(dataset):
    coco = COCO(MetadataCatalog.get(dataset).json_file)
    results = [dict(e, category_id=5) for e in instances_to_coco_json(detections(2), 2)]
    kept = json.loads(json.dumps(results))
    calls = [
        {"cocoeval_fn": COCOeval},
        {"use_fast_impl": False},
        {"use_fast_impl": True, "max_dets_per_image": [1, 10, 100]},
    ]
    for kwargs in calls:
        result = _evaluate_predictions_on_coco(coco, results, "segm", img_ids=[2], **kwargs)
        assert result.stats[0] == pytest.approx(1.0)
    positional = _evaluate_predictions_on_coco(coco, results, "bbox", None, False, [2])
    assert positional.stats[0] == pytest.approx(1.0)
    assert results == kept  # the entries are not changed


def test_another_limit_of_detections_keeps_the_summary(dataset):
    assert evaluate(dataset, max_dets_per_image=300)["segm"]["AP"] == pytest.approx(100)
