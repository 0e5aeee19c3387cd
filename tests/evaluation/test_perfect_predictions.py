"""What perfect predictions score on each set's true layout, and what known mistakes cost.

The expected figures are worked out here from the definitions; one noisy case is held against
pycocotools itself.
"""

import json
import math
from functools import partial

import numpy as np
import pycocotools.mask as mask_util
import pytest
from proving.corruptions import (
    blur,
    count,
    cut,
    cut_mask,
    drop,
    false_alarm,
    only_one,
    relabel,
    rename,
)
from proving.downloads import download_of
from proving.perfect import perfect_predictions, scores
from proving.process import TinyProcess
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

PANOPTIC = [
    "coco_2017_val_panoptic_with_sem_seg",
    "ade20k_panoptic_val",
    "cityscapes_fine_panoptic_val",
    "mapillary_vistas_panoptic_val",
]
SEMANTIC = [
    "ade20k_sem_seg_val",
    "ade20k_full_sem_seg_val",
    "coco_2017_test_stuff_10k_sem_seg",
    "mapillary_vistas_sem_seg_val",
]
INSTANCE = ["coco_2017_val", "ade20k_instance_val", "safetybarrier_val", "lvis_v1_val"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module")
def process(root):
    """Knows ``root``; prepares what is needed."""
    process = TinyProcess(root, images=3)
    yield process
    process.close()


@pytest.fixture
def scored(process):
    """``scored(dataset)`` and ``scored(dataset, corruption)`` give the evaluators' results."""

    def score(dataset: str, corrupt=None) -> dict:
        process.need(download_of(dataset))
        return process.run(scores, dataset, corrupt)

    return score


@pytest.fixture
def truth_of(process):
    """``truth_of(dataset)``: the perfect predictions of all images."""

    def truth(dataset: str) -> list:
        process.need(download_of(dataset))
        return process.run(perfect_predictions, dataset)

    return truth


def ap(results: dict) -> float:
    return pytest.approx(results["segm"]["AP"], abs=1e-6)


@pytest.mark.parametrize("dataset", PANOPTIC)
def test_perfect_panoptic_predictions_score_100(scored, dataset):
    results = scored(dataset)
    quality = results["panoptic_seg"]
    assert len(quality) == 9
    assert set(quality.values()) == {100}
    semantic = "IoU" if dataset.startswith("cityscapes") else "mIoU"
    assert results["sem_seg"][semantic] == pytest.approx(100)


@pytest.mark.parametrize("dataset", [n for n in PANOPTIC if not n.startswith("mapillary")])
def test_perfect_instances_of_panoptic_sets_score_100(scored, dataset):
    assert scored(dataset)["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("dataset", SEMANTIC)
def test_perfect_label_maps_score_100(scored, dataset):
    results = scored(dataset)["sem_seg"]
    for metric in ("mIoU", "fwIoU", "mACC", "pACC"):
        assert results[metric] == pytest.approx(100)


def test_perfect_label_maps_of_cityscapes_score_100(scored):
    results = scored("cityscapes_fine_sem_seg_val")["sem_seg"]
    assert set(results) == {"IoU", "iIoU", "IoU_sup", "iIoU_sup"}
    assert list(results.values()) == pytest.approx([100] * 4)


@pytest.mark.parametrize("dataset", [*INSTANCE, "cityscapes_fine_instance_seg_val"])
def test_perfect_instances_score_100(scored, dataset):
    results = scored(dataset)["segm"]
    assert results["AP"] == pytest.approx(100)
    assert results["AP50"] == pytest.approx(100)


@pytest.mark.parametrize("dataset", PANOPTIC)
def test_a_forgotten_segment_costs_its_class_what_pq_defines(scored, truth_of, dataset):
    classes = count(truth_of(dataset), "segments")
    category, n = classes.most_common(1)[0]
    corrupt = partial(drop, kind="segments", category=category)
    lost = 1 - (n - 1) / (n - 1 + 1 / 2)  # one FN beside n - 1 TP
    expected = 100 * (1 - lost / len(classes))
    assert scored(dataset, corrupt)["panoptic_seg"]["PQ"] == pytest.approx(expected)


@pytest.mark.parametrize("dataset", PANOPTIC)
def test_a_segment_that_is_too_small_costs_quality_but_is_recognised(scored, truth_of, dataset):
    truth = truth_of(dataset)
    classes = count(truth, "segments")
    category = only_one(truth, "segments")
    mask = next(s["mask"] for p in truth for s in p["segments"] if s["category_id"] == category)
    iou = cut_mask(mask, 0.75).sum() / mask.sum()
    results = scored(dataset, partial(cut, kind="segments", category=category, keep=0.75))[
        "panoptic_seg"
    ]
    expected = 100 * (1 - (1 - iou) / len(classes))
    assert results["PQ"] == pytest.approx(expected)
    assert results["SQ"] == pytest.approx(expected)
    assert results["RQ"] == 100


@pytest.mark.parametrize("dataset", PANOPTIC)
def test_a_segment_below_half_is_a_miss_and_a_false_alarm(scored, truth_of, dataset):
    truth = truth_of(dataset)
    classes = count(truth, "segments")
    category, n = classes.most_common(1)[0]
    corrupt = partial(cut, kind="segments", category=category, keep=0.45)
    lost = 1 - (n - 1) / n  # one FN and one FP beside n - 1 TP
    expected = 100 * (1 - lost / len(classes))
    assert scored(dataset, corrupt)["panoptic_seg"]["PQ"] == pytest.approx(expected)


def test_a_name_that_the_truth_lacks_adds_a_class_without_a_hit(scored, truth_of):
    dataset = "mapillary_vistas_panoptic_val"
    truth = truth_of(dataset)
    classes = count(truth, "segments")
    category = only_one(truth, "segments")
    stuff = {s["category_id"] for p in truth for s in p["segments"] if not s["isthing"]}
    new = next(c for c in range(65) if c not in classes)
    results = scored(dataset, partial(rename, kind="segments", category=category, new=new))[
        "panoptic_seg"
    ]
    assert results["PQ"] == pytest.approx(100 * (len(classes) - 1) / (len(classes) + 1))
    assert stuff  # both splits are active
    assert not math.isnan(results["PQ_st"])


@pytest.mark.parametrize("dataset", [*SEMANTIC, *PANOPTIC, "cityscapes_fine_sem_seg_val"])
def test_a_class_given_to_another_costs_both_their_iou(scored, truth_of, dataset):
    truth = truth_of(dataset)
    values, pixels = np.unique(
        np.concatenate([p["labels"].ravel() for p in truth]), return_counts=True
    )
    area = {v: n for v, n in zip(values.tolist(), pixels.tolist()) if v >= 0}
    a, b = list(area)[:2]
    results = scored(dataset, partial(relabel, category=a, new=b))["sem_seg"]
    expected = 100 * (len(area) - 2 + area[b] / (area[a] + area[b])) / len(area)
    mean = "IoU" if "cityscapes" in dataset else "mIoU"
    assert results[mean] == pytest.approx(expected)
    if mean == "mIoU":
        assert results["pACC"] == pytest.approx(100 * (1 - area[a] / sum(area.values())))
        assert results["mACC"] == pytest.approx(100 * (len(area) - 1) / len(area))


@pytest.mark.parametrize("dataset", INSTANCE[:3])
def test_a_forgotten_instance_costs_the_recall_above_it(scored, truth_of, dataset):
    classes = count(truth_of(dataset), "instances")
    category, n = classes.most_common(1)[0]
    results = scored(dataset, partial(drop, kind="instances", category=category))
    # 101 recall thresholds; precision is 1 up to recall (n - 1) / n, 0 above.
    own = (math.floor(100 * (n - 1) / n) + 1) / 101 if n > 1 else 0
    assert ap(results) == 100 * (len(classes) - 1 + own) / len(classes)


@pytest.mark.parametrize(
    "dataset",
    ["coco_2017_val", "ade20k_instance_val", "lvis_v1_val", "cityscapes_fine_instance_seg_val"],
)
def test_an_instance_of_iou_072_counts_at_five_of_ten_thresholds(scored, truth_of, dataset):
    truth = truth_of(dataset)
    classes = count(truth, "instances")
    category = only_one(truth, "instances")
    corrupt = partial(cut, kind="instances", category=category, keep=0.72)
    results = scored(dataset, corrupt)
    assert ap(results) == 100 * (len(classes) - 0.5) / len(classes)
    assert results["segm"]["AP50"] == pytest.approx(100)


@pytest.mark.parametrize("dataset", ["coco_2017_val", "ade20k_instance_val"])
def test_a_surer_false_alarm_halves_the_precision(scored, truth_of, dataset):
    truth = truth_of(dataset)
    classes = count(truth, "instances")
    category = only_one(truth, "instances")
    results = scored(dataset, partial(false_alarm, category=category))
    assert ap(results) == 100 * (len(classes) - 0.5) / len(classes)


@pytest.mark.parametrize("dataset", ["coco_2017_val", "ade20k_instance_val"])
def test_noisy_instances_score_what_pycocotools_says(scored, truth_of, root, dataset):
    noisy = truth_of(dataset)
    blur(noisy, "instances")
    file = {
        "coco_2017_val": root / "coco/annotations/instances_val2017.json",
        "ade20k_instance_val": root / "ADEChallengeData2016/ade20k_instance_val.json",
    }[dataset]
    gt = COCO(str(file))
    content = json.loads(file.read_text())
    category_ids = sorted(c["id"] for c in content["categories"])
    found = [
        {
            "image_id": image["id"],
            "category_id": category_ids[i["category_id"]],
            "segmentation": mask_util.encode(np.asfortranarray(i["mask"].astype(np.uint8))),
            "score": np.float32(i["score"]).item(),
        }
        for image, prediction in zip(content["images"], noisy)
        for i in prediction["instances"]
    ]
    evaluation = COCOeval(gt, gt.loadRes(found), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 5 < 100 * evaluation.stats[0] < 95
    results = scored(dataset, partial(blur, kind="instances"))["segm"]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    expected = [100 * v if v >= 0 else math.nan for v in evaluation.stats[:6]]
    assert [results[n] for n in names] == pytest.approx(expected, nan_ok=True)
