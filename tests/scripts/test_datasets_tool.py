"""``tools/datasets.py`` as a newcomer runs it."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from layouts.ade20k import write_ade20k
from layouts.safetybarrier import write_safetybarrier
from PIL import Image

from mask2former.data.inspection.commands import COMMANDS, DatasetToolError

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    write_safetybarrier(root)
    write_ade20k(root)
    return root


def tool(*arguments, cwd) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("DETECTRON2_DATASETS", None)
    return subprocess.run(
        [sys.executable, str(REPO / "tools/datasets.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )


def test_list_names_tasks_and_what_was_found(capsys):
    assert COMMANDS["list"](Namespace(pattern="cityscapes_fine")) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = {words[0]: words[1:] for line in printed if (words := line.split())}
    evaluator = "cityscapes_panoptic_seg"
    assert lines["cityscapes_fine_panoptic_val"][:3] == ["panoptic", evaluator, "19"]
    assert lines["cityscapes_fine_sem_seg_val"][-1] in ("found", "partly", "missing")


def test_a_reader_that_has_seen_enough_ends_it_quietly(root, tmp_path):
    read, write = os.pipe()
    os.close(read)  # as "| head" does after its lines
    script = str(REPO / "tools/datasets.py")
    command = [sys.executable, script, "list", "--root", str(root)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_check_reports_a_sound_set_and_one_that_lacks_files(root, tmp_path):
    done = tool("check", "--root", root, "safetybarrier_val", "ade20k_sem_seg_val", cwd=tmp_path)
    assert done.returncode == 1
    assert "2 records, 2 of them decoded" in done.stdout
    assert "nothing missing, nothing broken" in done.stdout
    assert "has no annotations_detectron2; it has: annotations/" in done.stdout
    assert "prepare_ade20k_sem_seg.py" in done.stdout
    assert "Traceback" not in done.stderr


def test_show_writes_pictures_and_a_sheet(root, tmp_path):
    output = tmp_path / "look"
    done = tool("show", "--root", root, "safetybarrier_train", "--output", output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in output.iterdir()) == [
        "contact_sheet.jpg",
        "site_train_0000.jpg",
        "site_train_0001.jpg",
    ]
    assert Image.open(output / "contact_sheet.jpg").width == 1600


def test_a_misspelt_name_ends_with_one_line(tmp_path):
    done = tool("check", "coco_2017_vall", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: coco_2017_vall is not registered; nearest: coco_2017_val")


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("list", {"pattern": "no_such_name"}, 'no registered name contains "no_such_name"'),
        ("show", {"name": "voc_2007_val", "n": 2}, "is missing; python tools/datasets.py check"),
        ("show", {"name": "voc_2007_val", "n": 0}, "--n 0: at least 1"),
        ("check", {"names": ["voc_2007_val"], "sample": 0}, "--sample 0: at least 1"),
    ],
)
def test_wrong_requests_name_the_remedy(command, options, said):
    with pytest.raises(DatasetToolError, match=said):
        COMMANDS[command](Namespace(**options))
