"""What a training run shows: table, curves, contact sheet."""

import json
import subprocess
import sys
from pathlib import Path

import cv2

from mask2former.inference import report

REPO = Path(__file__).parents[2]


def test_the_last_evaluation_is_reported_and_a_torn_line_is_left_out(tmp_path):
    rows = [{"iteration": 9, "segm/AP": 1.0}, {"iteration": 19, "panoptic_seg/PQ": 70.04}]
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"iteration": 2'
    (tmp_path / "metrics.json").write_text(text)
    metrics = report.final_metrics(report.read_metrics(tmp_path / "metrics.json"))
    assert metrics == {"PQ": 70.04, "AP": 1.0}
    assert "| 70.0 | 1.0 |" in report.metrics_table(metrics, {"data": "x"})


def test_curves_are_drawn_without_any_evaluation(tmp_path):
    report.draw_curves(
        [{"iteration": i, "total_loss": 9.0 - i} for i in range(3)], tmp_path / "c.png"
    )
    assert cv2.imread(str(tmp_path / "c.png")).shape[2] == 3


def test_quickstart_goes_from_nothing_to_pictures_and_reuses_them(project, tmp_path):
    command = [sys.executable, str(REPO / "tools/quickstart.py"), "--output", str(tmp_path / "out")]
    command += ["--config-file", project.config, "--iters", "2"]

    def run(*opts):
        # The project's data has other arguments than the default set; it must be left alone.
        return subprocess.run(
            [*command, *opts], cwd=REPO, env=project.env, capture_output=True, text=True
        )

    first = run()
    assert first.returncode == 0, first.stderr
    for name in ("metrics.md", "curves.png", "contact_sheet.png", "model_final.pth"):
        assert (tmp_path / "out" / name).stat().st_size > 0
        assert name in first.stdout
    assert "PQ" in (tmp_path / "out/metrics.md").read_text()
    second = run()
    assert second.returncode == 0, second.stderr
    assert "Reusing the training run" in second.stdout
