"""The loop around labelling: the report on corrections, and COCO files for the next training."""

import importlib.util
import json
from pathlib import Path

import pytest
from inference.annotation_task import HUMAN, pipeline, write_task

REPO = Path(__file__).parents[2]


def tool(name):
    spec = importlib.util.spec_from_file_location(name, REPO / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def proposed(tmp_path):
    """A pre-labelled task of three images, one of which people had worked on before."""
    task = write_task(tmp_path / "task", ["0.png", "1.png", "2.png"], {"2.png": HUMAN})
    pipeline(task, tmp_path / "out").run()
    return tmp_path / "out" / "annotations.xml"


def test_every_outcome_is_counted_for_its_label(proposed, tmp_path, capsys):
    text = proposed.read_text()
    images = text.split("<image")
    # 0: the post becomes a rail, the rail is moved by two pixels
    images[1] = images[1].replace('label="post"', 'label="rail"')
    images[1] = images[1].replace('left="2" top="2"', 'left="4" top="2"', 1)
    # 1: the rail is deleted, a new one drawn somewhere else
    start, end = images[2].index("<mask"), images[2].index("</mask>") + len("</mask>")
    drawn = '<polygon label="rail" source="manual" points="20,1;29,1;29,8;20,8"/>'
    images[2] = images[2][:start] + drawn + images[2][end:]
    after = tmp_path / "after.xml"
    after.write_text("<image".join(images))
    status = tool("cvat_report").main(
        [str(proposed), str(after), "--json", str(tmp_path / "r.json")]
    )
    assert status == 0
    report = json.loads((tmp_path / "r.json").read_text())
    rail, post = report["labels"]["rail"], report["labels"]["post"]
    assert (rail["proposals"], rail["reshaped"], rail["deleted"], rail["added"]) == (2, 1, 1, 1)
    assert rail["iou"] == pytest.approx(8 / 12, abs=0.001)
    assert (post["proposals"], post["relabelled"], post["accepted"]) == (3, 1, 2)
    assert report["images"] == 3
    assert "share accepted" in capsys.readouterr().out


def test_nothing_changed_is_all_accepted(proposed, tmp_path):
    report = tool("cvat_report").compare(str(proposed), str(proposed))
    assert report.total.to_json()["accepted"] == report.total.proposals == 5
    assert report.total.to_json()["iou"] == 1.0


def test_shapes_outside_their_image_count_nowhere(proposed, tmp_path):
    outside = '<polygon label="rail" source="{}" points="90,90;99,90;99,99"/></image>'
    file = tmp_path / "both.xml"
    file.write_text(proposed.read_text().replace("</image>", outside.format("auto"), 1))
    total = tool("cvat_report").compare(str(file), str(file)).total.to_json()
    assert (total["accepted"], total["deleted"], total["added"]) == (5, 0, 0)


def test_a_missing_file_is_one_line(proposed, capsys):
    assert tool("cvat_report").main([str(proposed), "gone.xml"]) == 2
    assert "no annotation file gone.xml" in capsys.readouterr().err


def test_a_corrected_task_becomes_coco_files_with_a_lasting_split(proposed, tmp_path):
    images = str(tmp_path / "task" / "images")
    convert = tool("cvat_to_coco")
    arguments = [str(proposed), "--images", images, "--output", str(tmp_path / "coco")]
    assert convert.main([*arguments, "--val-share", "0.5"]) == 0
    sides = [
        json.loads((tmp_path / "coco" / f"instances_{s}.json").read_text())
        for s in ("train", "val")
    ]
    names = [i["file_name"] for side in sides for i in side["images"]]
    assert sorted(names) == ["0.png", "1.png", "2.png"]
    assert sum(len(side["annotations"]) for side in sides) == 6
    assert [c["name"] for c in sides[0]["categories"]] == ["rail", "post"]

    from pycocotools.coco import COCO

    assert convert.main(arguments) == 0
    coco = COCO(str(tmp_path / "coco" / "instances.json"))
    mask = coco.annToMask(coco.anns[1])
    assert mask.sum() == coco.anns[1]["area"] == 100


def test_a_task_and_its_project_export_are_compared_by_name(proposed, tmp_path):
    after = tmp_path / "after.xml"
    after.write_text(proposed.read_text().replace("<image ", '<image subset="default" '))
    for pair in ((proposed, after), (after, proposed)):
        report = tool("cvat_report").compare(*map(str, pair))
        assert (report.images, report.total.counts["accepted"]) == (3, 5)


@pytest.mark.parametrize(
    "flags, message",
    [(["--val-share", "7"], "--val-share 7.0: must be in"), ([], "File exists")],
)
def test_wrong_flags_of_cvat_to_coco_are_one_line(proposed, tmp_path, capsys, flags, message):
    (tmp_path / "file").write_text("")
    images = str(tmp_path / "task" / "images")
    arguments = [str(proposed), "--images", images, "--output", str(tmp_path / "file"), *flags]
    assert tool("cvat_to_coco").main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
