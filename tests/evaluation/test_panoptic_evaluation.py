"""The streaming PQ evaluator gives the offline numbers under the published keys."""

import json
import shutil

import numpy as np
import pytest
import torch
from evaluation.small_sets import run
from parity_cases import ROOT, facts

from detectron2.data import MetadataCatalog
from mask2former.evaluation import COCOPanopticEvaluator
from mask2former.evaluation.id_map import read_id_map
from mask2former.evaluation.panoptic_evaluation import results_table

CASE = ROOT / "panoptic_quality"
KEYS = ["PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"]


@pytest.fixture
def dataset(tmp_path):
    name = f"pq_case_{tmp_path.name}"
    categories = json.loads((CASE / "gt.json").read_text())["categories"]
    things = [c["id"] for c in categories if c["isthing"]]
    stuff = [c["id"] for c in categories if not c["isthing"]]
    MetadataCatalog.get(name).set(
        panoptic_json=str(CASE / "gt.json"),
        panoptic_root=str(CASE / "gt"),
        thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(things)},
        stuff_dataset_id_to_contiguous_id={c: i + len(things) for i, c in enumerate(stuff)},
        label_divisor=1000,
    )
    yield name
    MetadataCatalog.remove(name)


def recorded_predictions(name):
    """The recorded predictions as a model would give them: (input, output) pairs."""
    meta = MetadataCatalog.get(name)
    for annotation in json.loads((CASE / "pred.json").read_text())["annotations"]:
        segments = []
        for segment in annotation["segments_info"]:
            isthing = segment["category_id"] in meta.thing_dataset_id_to_contiguous_id
            ids = (
                meta.thing_dataset_id_to_contiguous_id
                if isthing
                else meta.stuff_dataset_id_to_contiguous_id
            )
            category = ids[segment["category_id"]]
            segments.append({"id": segment["id"], "isthing": isthing, "category_id": category})
        pixels = read_id_map(str(CASE / "pred" / annotation["file_name"])).astype(np.int32)
        image_id = annotation["image_id"]
        yield (
            {"image_id": image_id, "file_name": f"/images/{image_id}.jpg"},
            {"panoptic_seg": (torch.from_numpy(pixels), segments)},
        )


def test_streamed_result_equals_panopticapi(dataset):
    expected = facts("panoptic_quality", "expected")["results"]
    results = run(COCOPanopticEvaluator(dataset), recorded_predictions(dataset))
    assert list(results) == ["panoptic_seg"]
    assert list(results["panoptic_seg"]) == KEYS
    for split, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for key in ("pq", "sq", "rq"):
            value = results["panoptic_seg"][key.upper() + suffix]
            assert value == pytest.approx(100 * expected[split][key], abs=1e-10)


def test_only_predictions_json_is_written(dataset, tmp_path):
    run(COCOPanopticEvaluator(dataset, str(tmp_path / "out")), recorded_predictions(dataset))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["predictions.json"]
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    original = json.loads((CASE / "pred.json").read_text())
    by_id = {a["image_id"]: a for a in original["annotations"]}
    assert {a["image_id"]: a for a in written["annotations"]} == by_id
    assert written["categories"] == json.loads((CASE / "gt.json").read_text())["categories"]


def test_model_output_is_left_as_it_was(dataset):
    pairs = list(recorded_predictions(dataset))
    before = json.dumps([output["panoptic_seg"][1] for _, output in pairs])
    run(COCOPanopticEvaluator(dataset), pairs)
    assert json.dumps([output["panoptic_seg"][1] for _, output in pairs]) == before


def test_missing_images_are_refused_unless_skipping_is_configured(dataset, caplog):
    pairs = [p for p in recorded_predictions(dataset) if p[0]["image_id"] != 5]
    with pytest.raises(ValueError, match=r"1 of 7 images .* were not predicted.* image 5"):
        run(COCOPanopticEvaluator(dataset), pairs)
    with caplog.at_level("WARNING", logger="mask2former"):
        results = run(COCOPanopticEvaluator(dataset, allow_missing=True), pairs)
    assert "1 of 7 images" in caplog.text
    assert results["panoptic_seg"]["PQ"] > 0


def test_map_of_category_times_divisor_is_decoded(dataset):
    evaluator = COCOPanopticEvaluator(dataset)
    pixels = np.array([[-1, 0, 0, 2001]], np.int64)
    decoded, segments = evaluator._decode_divisor_map(pixels)
    np.testing.assert_array_equal(decoded, [[0, 1, 1, 2002]])
    assert segments == [
        {"id": 1, "category_id": 0, "isthing": True},
        {"id": 2002, "category_id": 2, "isthing": True},
    ]


def test_set_without_annotations_only_writes_predictions(dataset, tmp_path, caplog):
    content = json.loads((CASE / "gt.json").read_text())
    del content["annotations"]
    path = tmp_path / "test_dev.json"
    path.write_text(json.dumps(content))
    meta = MetadataCatalog.get(dataset)
    del meta.panoptic_json
    meta.panoptic_json = str(path)
    with caplog.at_level("INFO", logger="mask2former"):
        out = run(COCOPanopticEvaluator(dataset, str(tmp_path)), recorded_predictions(dataset))
    assert out == {}
    assert "Annotations are not available" in caplog.text
    assert (tmp_path / "predictions.json").exists()


def test_wrong_size_is_named(dataset):
    item, output = next(iter(recorded_predictions(dataset)))
    pixels, segments = output["panoptic_seg"]
    with pytest.raises(ValueError, match=f"Image {item['image_id']}: the prediction is"):
        run(COCOPanopticEvaluator(dataset), [(item, {"panoptic_seg": (pixels[:-1], segments)})])


def test_missing_ground_truth_png_is_named(dataset, tmp_path):
    shutil.copytree(CASE / "gt", tmp_path / "gt")
    (tmp_path / "gt" / "2.png").unlink()
    meta = MetadataCatalog.get(dataset)
    del meta.panoptic_root
    meta.panoptic_root = str(tmp_path / "gt")
    with pytest.raises(ValueError, match=r"2\.png"):
        run(COCOPanopticEvaluator(dataset), recorded_predictions(dataset))


def test_table_has_the_published_header():
    row = {"pq": 0.5, "sq": 0.75, "rq": 0.6, "n": 3}
    table = results_table({"All": row, "Things": row, "Stuff": row}).splitlines()
    assert table[0] == "|        |   PQ   |   SQ   |   RQ   |  #categories  |"
    assert [line.split("|")[1].strip() for line in table[2:]] == ["All", "Things", "Stuff"]
    assert "50.000" in table[2]
