"""demo/demo.py as a user calls it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

REPO = Path(__file__).parents[2]


def run_demo(project, *arguments, opts=(), cwd=REPO):
    command = [sys.executable, str(REPO / "demo/demo.py"), "--config-file", project.config]
    command += [*map(str, arguments), "--opts", "MODEL.DEVICE", "cpu"]
    command += ["MODEL.WEIGHTS", project.weights, *opts]
    return subprocess.run(command, cwd=cwd, env=project.env, capture_output=True, text=True)


def test_a_folder_is_drawn_into_a_folder_from_within_demo(project, tmp_path):
    done = run_demo(
        project, "--input", project.images, "--output", tmp_path / "out", cwd=REPO / "demo"
    )
    assert done.returncode == 0, done.stderr
    drawn = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in drawn] == sorted(p.name for p in project.images.iterdir())
    original = cv2.imread(str(next(project.images.iterdir())))
    assert cv2.imread(str(drawn[0])).shape[2] == original.shape[2]


def test_a_glob_with_a_broken_image_draws_the_others_and_names_it(project, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in project.images.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    done = run_demo(
        project, "--input", str(folder / "*.jpg"), "--output", tmp_path / "out", "--batch-size", 2
    )
    assert done.returncode == 1
    assert "broken.jpg" in done.stdout + done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_video_is_drawn_into_a_video(project, tmp_path):
    film = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(film, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for shade in (0, 80, 160):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    done = run_demo(project, "--video-input", film, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (drawn,) = (tmp_path / "out").iterdir()
    assert int(cv2.VideoCapture(str(drawn)).get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    again = run_demo(project, "--video-input", film, "--output", tmp_path / "out")
    assert again.returncode == 2
    assert "exists" in again.stderr
    other = run_demo(project, "--video-input", film, "--output", tmp_path / "new/out.xyz")
    assert other.returncode == 2
    assert "should end in .mp4 or .mkv" in other.stderr


def test_a_camera_is_shown_until_esc_and_one_without_pictures_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "demo"))
    spec = importlib.util.spec_from_file_location("demo_script", REPO / "demo/demo.py")
    script = importlib.util.module_from_spec(spec)
    for name in ("media", "predictor"):  # predict/ has a module of that name, too
        sys.modules.pop(name, None)
    spec.loader.exec_module(script)
    for name in ("media", "predictor"):
        sys.modules.pop(name)
    camera = SimpleNamespace(isOpened=lambda: True, release=lambda: released.append(1))
    monkeypatch.setattr(script.cv2, "VideoCapture", lambda number: camera)
    shown, released = [], []
    monkeypatch.setattr(script, "show", lambda title, frame, **_: shown.append(frame) or frame < 2)
    pictures = SimpleNamespace(run_on_video=lambda camera: iter(range(9)))
    assert script.run_on_camera(pictures) == 0
    assert shown == [0, 1, 2]
    with pytest.raises(OSError, match="camera 0 gives no picture"):
        script.run_on_camera(SimpleNamespace(run_on_video=lambda camera: iter(())))
    assert released == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input", "no/such/*.jpg"], "no/such/*.jpg"),
        ([], "one of --input"),
        (["--webcam", "--input", "x.jpg"], "--webcam"),
    ],
)
def test_bad_arguments_get_one_clear_line(project, arguments, says):
    done = run_demo(project, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("opts", "says"),
    [
        (["MODEL.MASK_FORMERS.NHEADS", "8"], "there is no config key MODEL.MASK_FORMERS"),
        (["SOLVER.BASE_LR"], "come in pairs"),
    ],
)
def test_bad_overrides_get_one_clear_line(project, tmp_path, opts, says):
    image = sorted(project.images.iterdir())[0]
    done = run_demo(project, "--input", image, "--output", tmp_path / "a.png", opts=opts)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_panoptic_model_logs_the_published_line_too(project, tmp_path):
    image = sorted(project.images.iterdir())[0]
    done = run_demo(project, "--input", image, "--output", tmp_path / "a.png")
    assert re.search(
        rf"{image}: detected \d+ instances in [\d.]+s, \d+ panoptic segments drawn", done.stdout
    )


def test_the_threshold_filters_instances(project, tmp_path):
    opts = ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "False"]
    opts += ["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", "False"]
    image = sorted(project.images.iterdir())[0]
    counts = {}
    for threshold in (0.0, 1.01):
        done = run_demo(
            project,
            *("--input", image, "--output", tmp_path / f"{threshold}.png"),
            *("--confidence-threshold", threshold),
            opts=opts,
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout + done.stderr
        counts[threshold] = int(text.split("detected ")[1].split(" ")[0])
    assert counts == {0.0: 10, 1.01: 0}
    drawn = cv2.imread(str(tmp_path / "1.01.png")).astype(int)
    assert abs(drawn - cv2.resize(cv2.imread(str(image)), drawn.shape[1::-1])).mean() < 1
