"""predict/run_annotation_pipeline.py as people call it, with a tiny real model."""

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from inference.annotation_task import HUMAN, contents

from mask2former.data.cvat import iterate_images
from mask2former.data.cvat.writing import new_document

REPO = Path(__file__).parents[2]
SCRIPT = "run_annotation_pipeline.py"
LABELS = ["circle", "square", "triangle", "star", "ring", "cross"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pipeline", REPO / "predict" / SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the model is tiny, and others use the cores too
    yield
    torch.set_num_threads(before)


@pytest.fixture
def task(project, tmp_path):
    """A task of the tiny set's three pictures; the first has a shape that somebody drew."""
    images = []
    (tmp_path / "task/images").mkdir(parents=True)
    for path in sorted(project.images.iterdir()):
        (tmp_path / "task/images" / path.name).write_bytes(path.read_bytes())
        height, width = cv2.imread(str(path)).shape[:2]
        images.append((path.name, width, height))
    text = new_document(images, LABELS).decode()
    drawn = HUMAN.replace("rail", "circle")
    text = text.replace("\n  </image>", f"\n    {drawn}\n  </image>", 1)
    (tmp_path / "task/annotations.xml").write_text(text)
    return tmp_path / "task"


@pytest.fixture
def run(script, task, project, tmp_path, capsys, monkeypatch):
    """``run("--flag", ..., opts=[...])`` -> exit status, standard output, lines of errors."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # no terminal
    monkeypatch.setattr(script, "setup_logger", lambda **_: None)  # would keep capsys' stream

    def call(*flags, output="out", input_dir=task, config=project.config, opts=()):
        arguments = ["--input_dir", input_dir, "--output_dir", tmp_path / output]
        arguments += ["--config-file", config, "--confidence-threshold", "0.05", *flags, "--opts"]
        arguments += ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", project.weights, *opts]
        capsys.readouterr()
        status = script.main([str(a) for a in arguments])
        said = capsys.readouterr()
        errors = [x for x in said.err.splitlines() if x.startswith(SCRIPT)]
        assert "Traceback" not in said.err
        return SimpleNamespace(status=status, out=said.out, errors=errors)

    return call


def shapes(folder):
    return {
        image.name: [(s.kind, s.label, s.source) for s in image.shapes]
        for image in iterate_images(str(folder / "annotations.xml"))
    }


def test_the_published_command_runs_from_within_predict(task, project, tmp_path):
    command = [sys.executable, SCRIPT, "--input_dir", task, "--output_dir", tmp_path / "out"]
    command += ["--config-file", project.config, "--confidence-threshold", "0.05"]
    command += ["--batch-size", "2", "--num-workers", "1", "--opts"]
    command += ["MODEL.WEIGHTS", project.weights]
    done = subprocess.run(
        list(map(str, command)), cwd=REPO / "predict", env=project.env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in project.images.iterdir())
    assert sorted(p.name for p in (tmp_path / "out/visuals").iterdir()) == names
    found = shapes(tmp_path / "out")
    assert found[names[0]][0] == ("polygon", "circle", "manual")  # stays, and stays first
    for name in names:
        file = tmp_path / "out/predictions" / f"{Path(name).stem}.json"
        proposals = json.loads(file.read_text())
        assert {"label", "rle", "left", "top", "width", "height"} <= proposals[0].keys()
        machine = [s for s in found[name] if s[2] == "semi-auto"]
        assert 1 <= len(machine) <= len(proposals)
        assert all(kind == "mask" for kind, _, _ in machine)
    assert "3 images; proposals: " in done.stdout


def test_started_again_it_goes_on_and_ends_with_the_same_bytes(run, tmp_path):
    assert run().status == 0
    before = contents(tmp_path / "out")
    for path in ("annotations.xml", "review.csv"):
        (tmp_path / "out" / path).unlink()
    next((tmp_path / "out/checkpoints").iterdir()).unlink()
    for flags in ((), ("--resume",), ("--overwrite",)):
        assert run(*flags).status == 0
        assert contents(tmp_path / "out") == before


def test_other_settings_are_refused_until_overwrite(run, tmp_path):
    run()
    before = contents(tmp_path / "out")
    for flags, opts in (
        (["--confidence-threshold", "0.06"], []),
        (["--resume", "--min-area", "5"], []),
        ([], ["INPUT.MIN_SIZE_TEST", "48"]),
    ):
        done = run(*flags, opts=opts)
        assert done.status == 2
        assert "3 images were predicted with another model, config or thresholds" in done.errors[0]
        assert "--overwrite" in done.errors[0]
        assert contents(tmp_path / "out") == before
    assert run("--overwrite", opts=["INPUT.MIN_SIZE_TEST", "48"]).status == 0


def test_how_it_is_written_may_change_without_predicting_again(run, tmp_path, monkeypatch):
    run()
    from mask2former.inference import Predictor

    monkeypatch.setattr(Predictor, "__call__", lambda *_: pytest.fail("predicted again"))
    done = run("--shape", "polygon", "--existing", "replace-all")
    assert done.status == 0
    assert "polygons against masks: IoU" in done.out
    kinds = {s[0] for found in shapes(tmp_path / "out").values() for s in found}
    assert kinds == {"polygon"}
    assert "1 removed" in done.out


@pytest.mark.parametrize(("answer", "deleted"), [("", False), ("n", True)])
def test_in_a_terminal_it_asks_as_published(run, tmp_path, monkeypatch, answer, deleted):
    run()
    marker = tmp_path / "out/predictions/left.json"
    marker.write_text("[]")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert run().status == 0
    assert asked == ["Do you want to resume from existing outputs? [Y/n] "]
    assert marker.exists() != deleted


@pytest.mark.parametrize("output", ["panoptic", "semantic"])
def test_models_of_other_tasks_propose_too(run, tmp_path, output):
    switches = {"panoptic": "PANOPTIC_ON", "semantic": "SEMANTIC_ON"}
    opts = []
    for name in ("PANOPTIC_ON", "SEMANTIC_ON", "INSTANCE_ON"):
        opts += [f"MODEL.MASK_FORMER.TEST.{name}", str(name == switches[output])]
    opts += ["MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", "0.05"]
    opts += ["MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD", "0.0"]
    assert run(opts=opts).status == 0
    machine = [s for found in shapes(tmp_path / "out").values() for s in found if s[2] != "manual"]
    assert machine
    done = run("--task", "instance", output="other", opts=opts)
    assert done.status == 2
    assert f"the model gives {output} output, not instance" in done.errors[0]


def test_a_bad_image_is_listed_and_strict_says_so(run, task, tmp_path):
    name = sorted(p.name for p in (task / "images").iterdir())[1]
    (task / "images" / name).write_bytes(b"not a picture")
    done = run()
    assert done.status == 0
    assert f"left as it was: {name}: cannot be decoded" in done.out
    assert run("--strict").status == 1
    assert shapes(tmp_path / "out")[name] == []


@pytest.mark.parametrize(
    ("flags", "opts", "says"),
    [
        (["--batch-size", "0"], [], "--batch-size must be at least 1"),
        (["--confidence-threshold", "50"], [], "must be in [0, 1]"),
        (["--class-threshold", "circle"], [], "write it as CLASS=VALUE"),
        (["--class-threshold", "circle=high"], [], "could not convert string to float: 'high'"),
        (["--class-threshold", "circel=0.9"], [], "no such class; nearest: circle"),
        (["--label-map", "rig=Ring"], [], "no such class; nearest: ring"),
        ([], ["MODEL.WEIGHTS", "gone.pth"], "MODEL.WEIGHTS gone.pth: no such file"),
        ([], ["MODEL.WEIGHTS", ""], "parameters are not in it"),
        ([], ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "5"], "its predictions would be random"),
        ([], ["MODEL.WEIGHT", "x.pth"], "there is no config key MODEL.WEIGHT"),
    ],
)
def test_wrong_settings_are_one_line(run, tmp_path, flags, opts, says):
    done = run(*flags, opts=opts)
    assert done.status == 2
    assert len(done.errors) == 1
    assert says in done.errors[0]
    assert not (tmp_path / "out/annotations.xml").exists()


def test_wrong_inputs_are_one_line(run, task, tmp_path):
    def says(text, **where):
        done = run(**where)
        assert done.status == 2
        assert len(done.errors) == 1
        assert text in done.errors[0]

    says("there is no annotations.xml; export the task", input_dir=tmp_path)
    says("--output_dir is --input_dir", output="task")
    says("gone.yaml: no such file", config="gone.yaml")
    (task / "images").rename(task / "pictures")
    says("images does not exist")
    (task / "pictures").rename(task / "images")
    file = task / "annotations.xml"
    whole = file.read_text()
    for content, text in (
        (whole[:-40], "no readable XML"),
        ("<html></html>", "its root is"),
    ):
        file.write_text(content)
        says(text)


def test_interrupting_is_one_line(run, monkeypatch, script):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "Predictor", interrupt)
    done = run()
    assert done.status == 130
    assert done.errors == [f"{SCRIPT}: interrupted; start it again to go on"]


def test_a_second_run_into_one_folder_is_refused(run, script, tmp_path):
    with script.only_run(tmp_path / "out"):
        done = run("--overwrite")
    assert done.status == 2
    assert "another run is writing there" in done.errors[0]
    assert run().status == 0


def test_overwrite_keeps_a_file_that_people_put_there(run, tmp_path):
    run()
    (tmp_path / "out/annotations.xml").write_text("<annotations>corrected</annotations>")
    assert run("--overwrite").status == 0
    kept = (tmp_path / "out/annotations.before-1.xml").read_text()
    assert kept == "<annotations>corrected</annotations>"
