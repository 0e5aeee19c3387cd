"""Evaluators that need packages of their own: what works without, and what is said."""

import builtins
import importlib.util
import io
import json

import numpy as np
import pytest
import torch
from parity_cases import ROOT
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOPanopticEvaluator,
    LVISEvaluator,
)
from detectron2.evaluation._panoptic_quality import pq_compute
from detectron2.structures import Boxes, Instances


def missing(package):
    return importlib.util.find_spec(package) is None


@pytest.fixture
def metadata():
    name = "eval_other_set"
    meta = MetadataCatalog.get(name).set(
        thing_dataset_id_to_contiguous_id={11: 0},
        stuff_dataset_id_to_contiguous_id={22: 1},
        thing_classes=["car"],
        label_divisor=1000,
        json_file="nowhere.json",
        gt_dir="nowhere",
    )
    yield meta
    MetadataCatalog.remove(name)


@pytest.fixture
def nothing_installed(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] in ("panopticapi", "lvis"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name.split(".")[0])
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


def decoded(prediction):
    rgb = np.asarray(Image.open(io.BytesIO(prediction["png_string"]))).astype(int)
    return rgb @ [1, 256, 65536]


def test_panoptic_predictions_keep_ids_and_get_dataset_categories(metadata):
    evaluator = COCOPanopticEvaluator(metadata.name)
    evaluator.reset()
    seg = torch.tensor([[0, 1], [70000, 1]], dtype=torch.int32)
    infos = [
        {"id": 1, "isthing": True, "category_id": 0},
        {"id": 70000, "isthing": False, "category_id": 1},
    ]
    evaluator.process(
        [{"file_name": "a/b/img.jpg", "image_id": 4}], [{"panoptic_seg": (seg, infos)}]
    )
    (prediction,) = evaluator._predictions
    assert (prediction["file_name"], prediction["image_id"]) == ("img.png", 4)
    assert decoded(prediction).tolist() == seg.tolist()
    assert prediction["segments_info"] == [
        {"id": 1, "category_id": 11},
        {"id": 70000, "category_id": 22},
    ]


def test_panoptic_labels_without_segments_are_split(metadata):
    evaluator = COCOPanopticEvaluator(metadata.name)
    evaluator.reset()
    labels = torch.tensor([[-1, 3], [1000, 1000]])
    evaluator.process([{"file_name": "x.jpg", "image_id": 1}], [{"panoptic_seg": (labels, None)}])
    (prediction,) = evaluator._predictions
    assert decoded(prediction).tolist() == [[0, 4], [1001, 1001]]
    assert [s["category_id"] for s in prediction["segments_info"]] == [11, 22]


def test_panoptic_quality_without_panopticapi_has_its_numbers(nothing_installed, tmp_path):
    case = ROOT / "panoptic_quality"
    expected = json.loads((case / "expected.json").read_text())["results"]
    content = json.loads((case / "gt.json").read_text())
    ids = {bool(c["isthing"]): {} for c in content["categories"]}
    for category in content["categories"]:
        ids[bool(category["isthing"])][category["id"]] = category["id"]
    MetadataCatalog.get("eval_pq_set").set(
        thing_dataset_id_to_contiguous_id=ids[True],
        stuff_dataset_id_to_contiguous_id=ids[False],
        panoptic_json=str(case / "gt.json"),
        panoptic_root=str(case / "gt"),
    )
    try:
        evaluator = COCOPanopticEvaluator("eval_pq_set", str(tmp_path))
    finally:
        MetadataCatalog.remove("eval_pq_set")
    evaluator.reset()
    for pred in json.loads((case / "pred.json").read_text())["annotations"]:
        rgb = np.asarray(Image.open(case / "pred" / pred["file_name"])).astype(np.int64)
        seg = torch.from_numpy(rgb @ np.array([1, 256, 65536]))
        record = {"file_name": pred["file_name"], "image_id": pred["image_id"]}
        evaluator.process([record], [{"panoptic_seg": (seg, pred["segments_info"])}])
    results = evaluator.evaluate()["panoptic_seg"]
    for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for name in ("pq", "sq", "rq"):
            value = 100 * expected[group][name]
            assert results[name.upper() + suffix] == pytest.approx(value, abs=1e-9)


def test_panoptic_quality_refuses_predictions_that_contradict_themselves(tmp_path):
    def write(name, rgb, **content):
        (tmp_path / name).mkdir()
        Image.fromarray(rgb).save(tmp_path / name / "a.png")
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return str(tmp_path / f"{name}.json")

    segment = {"id": 1, "category_id": 3, "area": 4, "iscrowd": 0}
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[..., 0] = 1
    entry = {"image_id": 9, "file_name": "a.png"}
    truth = write(
        "gt",
        picture,
        categories=[{"id": 3, "isthing": 1}],
        annotations=[{**entry, "segments_info": [segment]}],
    )
    folders = (str(tmp_path / "gt"), str(tmp_path / "gt"))
    for k, (infos, message) in enumerate(
        [
            ([], "Image 9: segment 1 is in the PNG and not"),
            ([{**segment}, {**segment, "id": 2}], "Image 9: segment 2 is in segments_info and not"),
            ([{**segment, "category_id": 4}], "unknown category_id 4"),
        ]
    ):
        path = write(f"p{k}", picture, annotations=[{**entry, "segments_info": infos}])
        with pytest.raises(KeyError, match=message):
            pq_compute(truth, path, *folders)
    with pytest.raises(ValueError, match="no prediction for the image with id 9"):
        pq_compute(truth, write("none", picture, annotations=[]), *folders)


def test_lvis_says_what_to_install(metadata, nothing_installed):
    with pytest.raises(ModuleNotFoundError, match="pip install lvis"):
        LVISEvaluator(metadata.name)


@pytest.mark.skipif(not missing("cityscapesscripts"), reason="cityscapesscripts is installed")
@pytest.mark.parametrize("kind", [CityscapesInstanceEvaluator, CityscapesSemSegEvaluator])
def test_cityscapes_says_what_to_install(metadata, kind):
    evaluator = kind(metadata.name)
    evaluator.reset()
    with pytest.raises(ModuleNotFoundError, match="pip install cityscapesscripts"):
        evaluator.process([], [])


@pytest.fixture
def cityscapes(metadata, tmp_path):
    """One image with a road and two cars, as Cityscapes stores its ground truth."""
    pytest.importorskip("cityscapesscripts")
    ids = np.full((40, 60), 7, np.uint8)  # cars below 100 pixels would not count
    ids[4:20, 4:24] = ids[24:36, 30:56] = 26
    instances = ids.astype(np.uint16)
    instances[4:20, 4:24], instances[24:36, 30:56] = 26000, 26001
    (tmp_path / "aachen").mkdir()
    stem = "aachen_000000_000019"
    Image.fromarray(ids).save(tmp_path / "aachen" / f"{stem}_gtFine_labelIds.png")
    Image.fromarray(instances).save(tmp_path / "aachen" / f"{stem}_gtFine_instanceIds.png")
    del metadata.gt_dir
    metadata.gt_dir = str(tmp_path)
    return metadata, {"file_name": f"x/{stem}_leftImg8bit.png"}, ids, instances


def test_cityscapes_semantic_scores_on_cpu(cityscapes):
    metadata, record, ids, _ = cityscapes
    scores = torch.zeros(19, *ids.shape)
    scores[0][torch.from_numpy(ids == 7)] = 1  # train ids: road 0, car 13
    scores[13][torch.from_numpy(ids == 26)] = 1
    evaluator = CityscapesSemSegEvaluator(metadata.name)
    evaluator.reset()
    evaluator.process([record], [{"sem_seg": scores}])
    assert evaluator.evaluate()["sem_seg"]["IoU"] == pytest.approx(100)


def test_cityscapes_instance_scores_on_cpu(cityscapes):
    metadata, record, _, instances = cityscapes
    found = Instances(instances.shape)
    found.pred_masks = torch.from_numpy(np.stack([instances == 26000, instances == 26001]))
    found.scores, found.pred_classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    evaluator = CityscapesInstanceEvaluator(metadata.name)
    evaluator.reset()
    evaluator.process([record], [{"instances": found}])
    # Only the class "car" occurs; the averages leave the others out.
    assert evaluator.evaluate()["segm"] == pytest.approx({"AP": 100, "AP50": 100})


def test_lvis_scores_with_todays_numpy(tmp_path):
    pytest.importorskip("lvis")
    mask = np.zeros((64, 80), np.uint8)
    mask[10:40, 10:30] = 1
    polygon = [10, 10, 30, 10, 30, 40, 10, 40]
    image = {"id": 1, "height": 64, "width": 80}
    content = {
        "images": [{**image, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
        "categories": [{"id": 1, "name": "cat", "frequency": "f"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [10, 10, 20, 30],
                "area": 600,
                "segmentation": [polygon],
            }
        ],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    name = "eval_lvis_set"
    MetadataCatalog.get(name).set(json_file=str(path), thing_classes=["cat"])
    evaluator = LVISEvaluator(name, output_dir=str(tmp_path))
    evaluator.reset()
    found = Instances(
        (64, 80),
        pred_boxes=Boxes(torch.tensor([[10.0, 10, 30, 40]])),
        scores=torch.tensor([0.9]),
        pred_classes=torch.tensor([0]),
        pred_masks=torch.from_numpy(mask)[None],
    )
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    results = evaluator.evaluate()
    MetadataCatalog.remove(name)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["bbox"]["APf"] == pytest.approx(100)
    assert (tmp_path / "lvis_instances_results.json").exists()
