"""AP over things whose contiguous ids have gaps, and over the images that were seen."""

import json

import numpy as np
import pytest
import torch

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from mask2former.evaluation import InstanceSegEvaluator

SIDE = 64
SQUARES = {1: (11, [4, 4, 40, 40]), 2: (13, [10, 10, 50, 44])}  # image -> (category, xyxy)


@pytest.fixture
def dataset(tmp_path):
    annotations = []
    for image_id, (category, (x0, y0, x1, y1)) in SQUARES.items():
        annotations.append(
            {
                "id": image_id,
                "image_id": image_id,
                "category_id": category,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            }
        )
    content = {
        "images": [
            {"id": i, "width": SIDE, "height": SIDE, "file_name": f"{i}.jpg"} for i in SQUARES
        ],
        "annotations": annotations,
        "categories": [{"id": 11, "name": "cat"}, {"id": 13, "name": "dog"}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    name = f"instances_{tmp_path.name}"
    MetadataCatalog.get(name).set(
        json_file=str(tmp_path / "gt.json"),
        thing_classes=["cat", "dog"],
        thing_dataset_id_to_contiguous_id={11: 3, 13: 7},
    )
    yield name
    MetadataCatalog.remove(name)


def perfect(image_id, category):
    x0, y0, x1, y1 = SQUARES[image_id][1]
    masks = torch.zeros(1, SIDE, SIDE)
    masks[:, y0:y1, x0:x1] = 1
    boxes = Boxes(torch.tensor([[x0, y0, x1, y1]]))
    instances = Instances((SIDE, SIDE), pred_masks=masks, pred_boxes=boxes)
    instances.scores = torch.tensor([0.9])
    instances.pred_classes = torch.tensor([category])
    return instances


def run(evaluator, predictions):
    evaluator.reset()
    for image_id, instances in predictions:
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()


def test_contiguous_ids_with_gaps_are_evaluated(dataset, tmp_path):
    predictions = [(1, perfect(1, 3)), (2, perfect(2, 7))]
    results = run(InstanceSegEvaluator(dataset, output_dir=str(tmp_path / "out")), predictions)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP-dog"] == pytest.approx(100)
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [entry["category_id"] for entry in written] == [11, 13]


def test_mixed_up_classes_score_nothing(dataset):
    predictions = [(1, perfect(1, 7)), (2, perfect(2, 3))]
    assert run(InstanceSegEvaluator(dataset), predictions)["segm"]["AP"] == pytest.approx(0)


def test_classes_that_are_no_things_are_left_out_aloud(dataset, caplog):
    both = Instances.cat([perfect(1, 3), perfect(1, 5)])
    results = run(InstanceSegEvaluator(dataset), [(1, both), (2, perfect(2, 7))])
    assert results["segm"]["AP"] == pytest.approx(100)
    assert "1 predicted instances" in caplog.text


def test_metadata_of_the_data_set_stays_as_it_is(dataset):
    InstanceSegEvaluator(dataset)
    assert MetadataCatalog.get(dataset).thing_dataset_id_to_contiguous_id == {11: 3, 13: 7}


def test_skipped_images_are_no_misses(dataset):
    only_first = [(1, perfect(1, 3))]
    assert run(InstanceSegEvaluator(dataset, only_seen=True), only_first)["segm"][
        "AP"
    ] == pytest.approx(100)
    assert run(InstanceSegEvaluator(dataset), only_first)["segm"]["AP"] < 60


def test_is_a_coco_evaluator(dataset):
    assert isinstance(InstanceSegEvaluator(dataset), COCOEvaluator)
    assert np.isfinite(run(InstanceSegEvaluator(dataset), [(1, perfect(1, 3))])["bbox"]["AP50"])
