"""The two evaluation tools as command lines."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation.random_cases import detection_case, encode
from PIL import Image

from mask2former.evaluation import EvaluationError
from mask2former.evaluation.semantic_pq import semantic_panoptic_quality

REPO = Path(__file__).parents[2]


def run(tool: str, *flags, root: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, REPO / "tools" / tool, *map(str, flags)],
        capture_output=True,
        text=True,
        env={**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a tool in this process: ``call(tool, *flags)`` -> status, output, errors."""

    def call(tool: str, *flags):
        spec = importlib.util.spec_from_file_location(Path(tool).stem, REPO / "tools" / tool)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [tool, *map(str, flags)])
        status = module.main()
        return status, *capsys.readouterr()

    return call


BOUNDARY, SEMANTIC = "evaluate_coco_boundary_ap.py", "evaluate_pq_for_semantic_segmentation.py"


@pytest.fixture
def ade20k(tmp_path):
    """Three images of ADE20K's layout; all classes right but for one strip of one image."""
    images = tmp_path / "ADEChallengeData2016/images/validation"
    labels = tmp_path / "ADEChallengeData2016/annotations_detectron2/validation"
    images.mkdir(parents=True), labels.mkdir(parents=True)
    predictions = []
    for i in range(3):
        truth = np.full((20, 30), 255, np.uint8)
        truth[:, :10], truth[:, 10:20] = i, 149
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(images / f"ADE_val_0000000{i}.jpg")
        Image.fromarray(truth).save(labels / f"ADE_val_0000000{i}.png")
        found = np.where(truth == 255, 149, truth)
        if i == 0:
            found[:5, :10] = 149  # class 0: 150 of 200 pixels; class 149: 200 of 250, void aside
        for label in np.unique(found).tolist():
            name = f"/elsewhere/ADE_val_0000000{i}.jpg"
            mask = encode(found == label)
            predictions.append({"file_name": name, "category_id": label, "segmentation": mask})
    path = tmp_path / "sem_seg_predictions.json"
    path.write_text(json.dumps(predictions))
    return tmp_path, path


def test_semantic_pq_by_hand(ade20k):
    root, predictions = ade20k
    done = run(SEMANTIC, "--json-file", predictions, "--num-processes", 2, root=root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    # Class 0: 0.75; classes 1 and 2: 1; class 149: (0.8 + 1 + 1) / 3.
    pq = 100 * (0.75 + 1 + 1 + 2.8 / 3) / 4
    assert lines[0].split() == ["|", "PQ", "SQ", "RQ", "N"]
    for line, split in zip(lines[2:4], ("All", "Stuff")):
        assert line.replace("|", "").split() == [split, f"{pq:.1f}", f"{pq:.1f}", "100.0", "4"]
    # Over pixels: class 0 150 / 200, class 149 600 / 650.
    name, value = lines[4].split()
    assert name == "mIoU:"
    assert float(value) == pytest.approx((0.75 + 1 + 1 + 600 / 650) / 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: --json-file is missing"),
        (["--json-file", "/nowhere.json"], "error: --json-file /nowhere.json: No such file"),
        (["--json-file", __file__], "is no JSON file"),
        (["--json-file", "{json}", "--dataset-name", "x"], "there is no data set 'x'"),
    ],
)
def test_semantic_tool_says_in_one_line_what_is_wrong(flags, message, ade20k, call):
    _, predictions = ade20k
    status, _, errors = call(SEMANTIC, *(f.format(json=predictions) for f in flags))
    assert status == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_predictions_of_another_set_are_refused(tmp_path):
    truth = np.zeros((4, 4), np.uint8)
    Image.fromarray(truth).save(tmp_path / "a.png")
    entry = {"file_name": "a.jpg", "category_id": 7, "segmentation": encode(truth == 0)}
    known = {"a.jpg": str(tmp_path / "a.png")}
    with pytest.raises(EvaluationError, match="category_id 7"):
        semantic_panoptic_quality([entry], known, ["one", "two"])
    with pytest.raises(EvaluationError, match=r"b\.jpg was predicted"):
        semantic_panoptic_quality([{**entry, "file_name": "b.jpg"}], known, ["one"] * 9)
    # An id that the map lacks is refused, where the published tool took the previous one.
    with pytest.raises(EvaluationError, match="category_id 7"):
        semantic_panoptic_quality([entry], known, ["one"] * 9, contiguous_id={1: 0})


@pytest.fixture
def coco(tmp_path):
    content, results = detection_case(0, images=6)
    (tmp_path / "gt.json").write_text(json.dumps(content))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    return tmp_path / "gt.json", tmp_path / "dt.json"


def test_boundary_ap_is_below_mask_ap(coco, call):
    gt, dt = coco
    values = {}
    for iou_type in ("boundary", "segm"):
        files = ("--gt-json-file", gt, "--dt-json-file", dt)
        status, output, _ = call(BOUNDARY, *files, "--iou-type", iou_type, "--num-processes", 2)
        assert status == 0
        assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all" in output
        last = output.strip().splitlines()[-1].split()
        assert last[:2] == [f"{iou_type}:", "AP"]
        values[iou_type] = float(last[2])
    assert 0 < values["boundary"] < values["segm"] < 100


def test_boundary_tool_runs_as_a_command(coco, tmp_path):
    gt, dt = coco
    done = run(BOUNDARY, "--gt-json-file", gt, "--dt-json-file", dt, root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "boundary: AP " in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: --gt-json-file is missing"),
        (["--gt-json-file", "{gt}"], "error: --dt-json-file is missing"),
        (["--gt-json-file", "{dt}", "--dt-json-file", "{dt}"], "holds a list, where a dict is"),
        (["--gt-json-file", "{gt}", "--dt-json-file", "/no.json"], "/no.json: No such file"),
        (["--gt-json-file", "{gt}", "--dt-json-file", "{dt}", "--dilation-ratio", "0"], "positive"),
    ],
)
def test_boundary_tool_says_in_one_line_what_is_wrong(flags, message, coco, call):
    gt, dt = coco
    status, _, errors = call(BOUNDARY, *(f.format(gt=gt, dt=dt) for f in flags))
    assert status == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
