"""What all preparation scripts share: interruption, re-runs, processes, errors, run lengths."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image
from prepare_scripts import REPOSITORY, run_script

from mask2former.data.preparation import Options, PreparationError, for_splits
from mask2former.data.preparation.errors import MissingInput
from mask2former.data.preparation.files import finished, link_or_copy, read_labels, save_image
from mask2former.data.preparation.parallel import Journal, collect, work_through
from mask2former.data.preparation.segments import describe_segments, encode_segments

SCRIPTS = sorted(path.stem for path in (REPOSITORY / "datasets").glob("prepare_*.py"))


def note(folder: Path, bad: str, item: str) -> tuple[str, int]:
    """Leaves a trace of the call; fails for one item."""
    if item == bad:
        raise PreparationError(f"{item} is broken")
    (folder / item).touch()
    return item, len(item)


def die(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(tmp_path, workers):
    options = Options(tmp_path, workers=workers)
    results = list(work_through(partial(note, tmp_path, ""), list("edcba"), options, "letters"))
    assert [key for key, _ in results] == list("edcba")


def test_an_interrupted_collection_goes_on_where_it_stopped(tmp_path, capsys):
    summary, calls = tmp_path / "out" / "set.json", tmp_path
    items = {letter: letter for letter in "abcd"}
    options = Options(tmp_path)
    with pytest.raises(PreparationError, match="c is broken"):
        collect(partial(note, calls, "c"), items, options, summary)
    for done in "ab":
        (calls / done).unlink()
    assert collect(partial(note, calls, ""), items, options, summary) == [1, 1, 1, 1]
    assert sorted(p.name for p in calls.iterdir() if p.is_file()) == ["c", "d"]
    assert "going on after 2 of 4" in capsys.readouterr().out
    Journal.remove(summary)
    assert not list(summary.parent.iterdir())


@pytest.mark.parametrize("change", ["settings", "overwrite", "torn line", "lost file"])
def test_results_that_do_not_count_are_made_again(tmp_path, change):
    summary = tmp_path / "set.json"
    items = {letter: letter for letter in "ab"}
    options = Options(tmp_path)
    collect(partial(note, tmp_path, ""), items, options, summary, settings=1)
    for letter in items:
        (tmp_path / letter).unlink()
    if change == "torn line":
        journal = tmp_path / ".set.json.journal"
        journal.write_text(journal.read_text()[:-3])
    collect(
        partial(note, tmp_path, ""),
        items,
        Options(tmp_path, overwrite=change == "overwrite"),
        summary,
        settings=2 if change == "settings" else 1,
        is_there=lambda key: change != "lost file" or key != "b",
    )
    again = {letter for letter in items if (tmp_path / letter).exists()}
    assert again == ({"a", "b"} if change in ("settings", "overwrite") else {"b"})


def test_a_killed_worker_ends_the_run_with_advice(tmp_path):
    with pytest.raises(PreparationError, match="fewer --workers"):
        list(work_through(die, [1, 2, 3], Options(tmp_path, workers=2), "deaths"))


def test_what_a_killed_run_left_is_swept_but_not_what_another_is_writing(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".a.png.partial-{ended.pid}").touch()
    (tmp_path / f".b.png.partial-{os.getppid()}").touch()
    (tmp_path / "c.png").touch()
    assert finished(tmp_path) == {"c.png"}
    assert sorted(os.listdir(tmp_path)) == [f".b.png.partial-{os.getppid()}", "c.png"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(image, *args, **kwargs):
        Path(args[0]).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space"):
        save_image(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    assert not list(tmp_path.iterdir())


def test_files_are_copied_where_links_are_impossible(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("content")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*args):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "content"


def test_splits_that_are_there_are_done_before_the_others_are_named():
    done = []

    def prepare(split: str) -> None:
        if split != "train":
            raise MissingInput(f"{split}.json is missing", "Download it.")
        done.append(split)

    with pytest.raises(PreparationError) as error:
        for_splits(["val", "train", "test"], prepare)
    assert done == ["train"]
    assert str(error.value) == "val.json is missing; test.json is missing. Download it."


def test_a_truncated_picture_is_named(tmp_path):
    path = tmp_path / "a.png"
    save_image(path, np.random.default_rng(0).integers(0, 255, (50, 50)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(PreparationError, match=r"a\.png cannot be read"):
        read_labels(path)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (30, 41)])
def test_run_lengths_areas_and_boxes_are_those_of_pycocotools(shape):
    ids = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint16) * 300
    runs = encode_segments(ids, [0, 300, 600, 900, 7])
    assert 7 not in runs
    for segment in describe_segments(ids):
        mask = ids == segment.value
        expected = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert runs[segment.value]["counts"] == expected["counts"].decode()
        assert runs[segment.value]["size"] == list(shape)
        assert segment.area == mask.sum()
        assert segment.bbox == mask_util.toBbox(expected).tolist()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as error:
        run_script(name, "--help")
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text and f"python datasets/{name}.py" in text


@pytest.mark.parametrize(
    "name", [s for s in SCRIPTS if s not in ("prepare_shapes", "prepare_crop_sampling")]
)
def test_without_the_download_every_script_says_in_a_line_where_it_is_to_be_had(
    name, tmp_path, capsys
):
    assert run_script(name, "--root", str(tmp_path), "--quiet") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert str(tmp_path) in message
    assert "http" in message
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_ctrl_c_ends_without_a_traceback_and_the_next_run_goes_on(tmp_path, capsys):
    source = tmp_path / "ADEChallengeData2016" / "annotations" / "training"
    source.mkdir(parents=True)
    labels = np.random.default_rng(0).integers(0, 151, (70, 70)).astype(np.uint8)
    Image.fromarray(labels).save(source / "0.png")
    for i in range(1, 300):
        os.link(source / "0.png", source / f"{i}.png")
    # Files open slowly there, or a busy machine might finish before it is interrupted. And where
    # these tests run in the background of a script, the shell has all of them ignore Ctrl-C.
    slowly = (
        "import runpy, signal, sys, time; from PIL import Image; fast = Image.open; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "Image.open = lambda *a, **k: time.sleep(0.1) or fast(*a, **k); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = str(REPOSITORY / "datasets" / "prepare_ade20k_sem_seg.py")
    arguments = ["--root", str(tmp_path), "--splits", "training", "--quiet", "--workers", "2"]
    command = [sys.executable, "-c", slowly, script, *arguments]
    # A group of its own, as a terminal makes one: Ctrl-C reaches the workers, too.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    output = tmp_path / "ADEChallengeData2016" / "annotations_detectron2" / "training"
    deadline = time.monotonic() + 60
    while not list(output.glob("[0-9]*.png")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "Interrupted; run it again to go on from here."
    kept = len(list(output.iterdir()))
    assert 0 < kept < 300
    assert run_script("prepare_ade20k_sem_seg", *arguments) == 0
    assert f"{300 - kept} label maps written, {kept} were there" in capsys.readouterr().out
    assert len(list(output.iterdir())) == 300
    assert np.array_equal(np.asarray(Image.open(output / "7.png")), labels - np.uint8(1))


def test_jsons_in_this_package_are_plain(tmp_path):
    """numpy numbers must not reach a journal or a summary."""
    ids = np.array([[5, 5], [0, 5]], np.uint16)
    text = json.dumps([s.__dict__ for s in describe_segments(ids)])
    assert json.loads(text)[1] == {"value": 5, "area": 3, "bbox": [0, 0, 2, 2]}
