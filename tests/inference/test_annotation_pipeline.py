"""Pre-labelling: what is written, what stays, and what one bad image costs (nothing)."""

import json
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from inference.annotation_task import (
    HUMAN,
    bright_squares,
    contents,
    pipeline,
    write_task,
)
from PIL import Image
from tqdm import tqdm

from mask2former.data.cvat import CvatError, iterate_images
from mask2former.inference.annotation import (
    MergeOptions,
    PipelineOptions,
    ProposalOptions,
)


def shapes_of(output):
    return {image.name: image.shapes for image in iterate_images(str(output / "annotations.xml"))}


def test_the_published_files_are_written(tmp_path):
    task = write_task(tmp_path / "task", ["a.png", "sub/b.jpg"])
    summary = pipeline(task, tmp_path / "out").run()
    found = contents(tmp_path / "out")
    assert {"annotations.xml", "review.csv", "summary.json"} < found.keys()
    assert {"visuals/a.png", "visuals/sub/b.jpg"} < found.keys()
    predictions = json.loads(found["predictions/a.json"])
    assert [p["label"] for p in predictions] == ["rail", "post"]
    published = {"label", "rle", "left", "top", "width", "height"}
    assert published <= predictions[0].keys()
    assert "predictions/sub/b.json" in found
    assert summary.merged.added == {"rail": 2, "post": 2}
    mask = shapes_of(tmp_path / "out")["a.png"][0]
    assert list(mask.attributes)[:4] == ["label", "source", "occluded", "rle"]
    assert mask.attributes["source"] == "semi-auto"
    assert mask.mask(24, 30)[2:12, 2:12].all()


def test_kept_shapes_drop_what_repeats_them(tmp_path):
    task = write_task(tmp_path / "task", ["a.png"], {"a.png": HUMAN})
    summary = pipeline(task, tmp_path / "out").run()
    shapes = shapes_of(tmp_path / "out")["a.png"]
    assert [s.kind for s in shapes] == ["polygon", "mask"]
    assert summary.merged.overlapping == {"rail": 1}
    before, after = (f.read_text() for f in _xml_files(task, tmp_path / "out"))
    assert HUMAN in after
    assert after.startswith(before[: before.index(HUMAN) + len(HUMAN)])


def _xml_files(task, output):
    return task / "annotations.xml", output / "annotations.xml"


AUTO = HUMAN.replace("manual", "auto")


@pytest.mark.parametrize(
    "policy, existing, expected",
    [
        ("keep", AUTO, ["polygon", "mask"]),
        ("replace-auto", AUTO, ["mask", "mask"]),
        ("replace-auto", HUMAN, ["polygon", "mask"]),
        ("replace-all", HUMAN, ["mask", "mask"]),
        ("skip-annotated", HUMAN, ["polygon"]),
        ("skip-annotated", "", ["mask", "mask"]),
    ],
)
def test_existing_shapes_follow_the_policy(tmp_path, policy, existing, expected):
    task = write_task(tmp_path / "task", ["a.png"], {"a.png": existing})
    pipeline(task, tmp_path / "out", merging=MergeOptions(existing=policy)).run()
    assert [s.kind for s in shapes_of(tmp_path / "out")["a.png"]] == expected


def test_images_without_proposals_stay_to_the_byte(tmp_path):
    task = write_task(tmp_path / "task", shapes={"1.png": HUMAN})
    options = ProposalOptions(threshold=0.99)
    summary = pipeline(task, tmp_path / "out", proposals=options).run()
    before, after = _xml_files(task, tmp_path / "out")
    assert after.read_bytes() == before.read_bytes()
    assert summary.without_proposals == 5
    assert not (tmp_path / "out" / "predictions").exists()


def test_one_bad_image_costs_only_itself(tmp_path):
    task = write_task(tmp_path / "task")
    (task / "images" / "1.png").write_bytes(b"not a picture")
    (task / "images" / "2.png").unlink()
    Image.new("RGB", (7, 7)).save(task / "images" / "3.png")
    summary = pipeline(task, tmp_path / "out").run()
    assert summary.missing == ["2.png"]
    assert summary.failed.keys() == {"1.png", "3.png"}
    assert "7x7, but the annotation file says 30x24" in summary.failed["3.png"]
    shapes = shapes_of(tmp_path / "out")
    assert [len(shapes[f"{i}.png"]) for i in range(5)] == [2, 0, 0, 0, 2]


@pytest.mark.parametrize("failure", [RuntimeError, ValueError])
def test_a_model_that_fails_on_one_image_is_asked_for_the_others(tmp_path, failure):
    task = write_task(tmp_path / "task")
    poisoned = np.asarray(Image.open(task / "images" / "2.png")).copy()
    poisoned[0, 0] = 77
    Image.fromarray(poisoned).save(task / "images" / "2.png")

    def fragile(images):
        if any(image[0, 0, 0] == 77 for image in images):
            raise failure("out of memory")
        return bright_squares(images)

    summary = pipeline(task, tmp_path / "out", fragile).run()
    assert summary.failed == {"2.png": "the model failed: out of memory"}
    assert summary.merged.added["rail"] == 4


def test_equal_stems_and_odd_names_keep_apart(tmp_path):
    names = ["a.png", "a.jpg", "b/a.png", "ä ö#%.png", "Zaun &amp; Tor.png"]
    task = write_task(tmp_path / "task", [n.replace("&amp;", "&") for n in names])
    text = (task / "annotations.xml").read_text().replace("Zaun & Tor", "Zaun &amp; Tor")
    (task / "annotations.xml").write_text(text)
    summary = pipeline(task, tmp_path / "out").run()
    assert summary.merged.added["rail"] == 5
    found = {p for p in contents(tmp_path / "out") if p.startswith("predictions/")}
    assert found == {
        "predictions/a.png.json",
        "predictions/a.jpg.json",
        "predictions/b/a.json",
        "predictions/ä ö#%.json",
        "predictions/Zaun & Tor.json",
    }


def test_names_cannot_lead_out_of_the_folders(tmp_path):
    task = write_task(tmp_path / "task", ["a.png"])
    text = (task / "annotations.xml").read_text()
    (task / "annotations.xml").write_text(text.replace('"a.png"', '"../images/a.png"'))
    summary = pipeline(task, tmp_path / "out").run()
    assert summary.missing == ["../images/a.png"]


def test_polygons_report_how_well_they_fit(tmp_path):
    task = write_task(tmp_path / "task")
    summary = pipeline(task, tmp_path / "out", merging=MergeOptions(shape="polygon")).run()
    assert {s.kind for s in shapes_of(tmp_path / "out")["0.png"]} == {"polygon"}
    assert summary.to_json()["polygon_iou"]["min"] > 0.9


def test_scores_go_where_the_label_declares_them_and_stack_by_score(tmp_path):
    task = write_task(tmp_path / "task", ["a.png"])
    merging = MergeOptions(score_attribute={"rail": "Score"})
    pipeline(task, tmp_path / "out", merging=merging).run()
    rail, post = shapes_of(tmp_path / "out")["a.png"]
    assert rail.values == {"Score": "0.9000"}
    assert post.values == {}
    assert (rail.attributes["z_order"], post.attributes["z_order"]) == ("1", "0")


def test_thresholds_caps_and_names_are_per_class(tmp_path):
    task = write_task(tmp_path / "task", ["a.png"])
    options = ProposalOptions(class_thresholds={"rail": 0.95, "post": 0.1}, label_map={"post": "P"})
    pipeline(task, tmp_path / "out", proposals=options).run()
    assert [s.label for s in shapes_of(tmp_path / "out")["a.png"]] == ["P", "P"]
    pipeline(task, tmp_path / "out2", proposals=ProposalOptions(max_per_image=1)).run()
    assert [s.label for s in shapes_of(tmp_path / "out2")["a.png"]] == ["rail"]


def test_the_least_certain_image_comes_first(tmp_path):
    task = write_task(tmp_path / "task", ["sure.png", "unsure.png"])

    def predict(images):
        outputs = bright_squares(images)
        outputs[-1]["instances"].scores[:] = 0.5
        return outputs

    pipeline(task, tmp_path / "out", predict).run()
    lines = (tmp_path / "out" / "review.csv").read_text().splitlines()
    assert lines[1].startswith("unsure.png,1.0000,3,0.5000")


def test_a_finished_run_predicts_nothing_again(tmp_path):
    task = write_task(tmp_path / "task")
    pipeline(task, tmp_path / "out").run()
    before = contents(tmp_path / "out")

    def refuse(images):
        raise AssertionError("predicted again")

    pipeline(task, tmp_path / "out", refuse).run()
    assert contents(tmp_path / "out") == before
    with pytest.raises(AssertionError, match="predicted again"):
        pipeline(task, tmp_path / "out", refuse, settings="model 2").run()


def test_killed_twenty_times_it_ends_with_the_same_bytes(tmp_path):
    names = [f"{i}.png" for i in range(24)]
    task = write_task(tmp_path / "task", names, {"3.png": HUMAN})

    def slow(images):
        time.sleep(0.01)
        return bright_squares(images)

    def run(output):
        pipeline(task, output, slow, options=PipelineOptions(batch_size=2, num_workers=2)).run()

    run(tmp_path / "whole")
    generator = random.Random(5)
    kills = 0
    for _ in range(20):
        child = os.fork()
        if child == 0:
            # tqdm's default lock is shared with the parent: killed while it holds that, a child
            # would leave the parent waiting for ever.
            tqdm.set_lock(threading.RLock())
            run(tmp_path / "killed")
            os._exit(0)
        time.sleep(generator.uniform(0.005, 0.12))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
    assert kills >= 5
    run(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_shapes_that_cannot_be_read_stay_and_cost_no_other(tmp_path):
    broken = (
        '<mask label="rail" source="manual" rle="1, 2" left="0" top="0" width="5" height="5"/>'
        '<polygon label="rail" source="manual" points="nan,2;3,4;1e9,5"/>'
        '<polygon label="post" source="manual" points="1,2;3,4"/><box label="post"/>'
    )
    task = write_task(tmp_path / "task", ["a.png"], {"a.png": broken + HUMAN})
    summary = pipeline(task, tmp_path / "out").run()
    assert summary.merged.overlapping == {"rail": 1}
    assert summary.merged.added == {"post": 1}
    assert broken + HUMAN in (tmp_path / "out/annotations.xml").read_text()


def test_a_replaced_picture_is_predicted_again(tmp_path):
    task = write_task(tmp_path / "task", ["a.png", "b.png"])
    pipeline(task, tmp_path / "out").run()
    Image.new("RGB", (30, 24)).save(task / "images/b.png")
    seen = []

    def predict(images):
        seen.append(len(images))
        return bright_squares(images)

    pipeline(task, tmp_path / "out", predict).run()
    assert sum(seen) >= 1
    assert [len(s) for s in shapes_of(tmp_path / "out").values()] == [2, 0]


def test_a_file_that_people_put_into_the_output_is_kept(tmp_path):
    task, out = write_task(tmp_path / "task"), tmp_path / "out"
    pipeline(task, out).run()
    corrected = (out / "annotations.xml").read_bytes().replace(b"rail", b"hand")
    (out / "annotations.xml").write_bytes(corrected)
    pipeline(task, out).run()
    assert (out / "annotations.before-1.xml").read_bytes() == corrected
    pipeline(task, out, merging=MergeOptions(z_order="zero")).run()  # our own needs no copy
    assert len(list(out.glob("*.xml"))) == 2


def test_formats_that_hold_no_colours_are_drawn_as_png(tmp_path):
    task = write_task(tmp_path / "task", ["a.pgm", "frame_000000.PNG"])
    text = (task / "annotations.xml").read_text()
    (task / "annotations.xml").write_text(text.replace("frame_000000.PNG", "frame_000000"))
    Image.open(task / "images/a.pgm").convert("L").save(task / "images/a.pgm")
    summary = pipeline(task, tmp_path / "out").run()
    assert not summary.failed and not summary.missing
    drawn = sorted(p.name for p in (tmp_path / "out/visuals").iterdir())
    assert drawn == ["a.pgm.png", "frame_000000.png"]


def test_of_two_images_with_one_name_only_the_broken_one_is_left_out(tmp_path):
    task = write_task(tmp_path / "task", ["one/a.png", "two/a.png"])
    text = (task / "annotations.xml").read_text()
    for subset in ("one", "two"):
        text = text.replace(f'name="{subset}/a.png"', f'name="a.png" subset="{subset}"')
    (task / "annotations.xml").write_text(text)
    (task / "images/two/a.png").write_bytes(b"no picture")
    summary = pipeline(task, tmp_path / "out").run()
    assert len(summary.failed) == 1
    assert summary.merged.added == {"rail": 1, "post": 1}


def test_names_may_be_as_long_as_a_file_system_allows(tmp_path):
    name = "ф" * 123 + ".png"  # 250 bytes of 255
    task = write_task(tmp_path / "task", [name])
    assert pipeline(task, tmp_path / "out").run().merged.added["rail"] == 1


def test_a_video_export_is_refused(tmp_path):
    (tmp_path / "task/images").mkdir(parents=True)
    task = write_task(tmp_path / "task", [])
    text = (task / "annotations.xml").read_text()
    track = '<track id="0" label="rail"></track></annotations>'
    (task / "annotations.xml").write_text(text.replace("</annotations>", track))
    with pytest.raises(CvatError, match="is a video export"):
        pipeline(task, tmp_path / "out").run()


def test_an_image_without_size_and_a_shape_without_label_cost_no_other(tmp_path):
    task = write_task(tmp_path / "task", ["a.png", "b.png", "c.png"], {"c.png": "<box/>"})
    file = task / "annotations.xml"
    text = file.read_text().replace('name="a.png" width="30"', f'name="a.png">{HUMAN}', 1)
    text = text.replace(f'>{HUMAN} height="24">', f' height="24">{HUMAN}')
    file.write_text(text.replace("</annotations>", f"<image>{HUMAN}</image></annotations>"))
    summary = pipeline(task, tmp_path / "out").run()
    assert summary.failed.keys() == {"a.png"}
    assert "width" in summary.failed["a.png"]
    assert summary.missing == ["id -1"]
    assert summary.merged.added == {"rail": 2, "post": 2}
    written = (tmp_path / "out/annotations.xml").read_text()
    assert written.count(HUMAN) == 2
    assert "<box/>" in written


def test_a_deep_grey_image_is_named_with_the_remedy(tmp_path, caplog):
    task = write_task(tmp_path / "task", ["a.png", "b.png"])
    Image.fromarray(np.full((24, 30), 3000, np.uint16)).save(task / "images/b.png")
    pipeline(task, tmp_path / "out").run()
    (warning,) = [r.getMessage() for r in caplog.records if "more than 8 bits" in r.getMessage()]
    assert "b.png" in warning
    assert "convert such images" in warning
