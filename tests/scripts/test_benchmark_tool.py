"""tools/benchmark.py: parity before speed, figures as JSON, clear errors. Nothing is timed here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron2.structures import Boxes, Instances
from mask2former.benchmark import cli
from mask2former.benchmark.mappers import cases, measuring, pictures
from mask2former.benchmark.mappers.comparing import first_difference
from mask2former.benchmark.timing import Rounds, alternate

REPO = Path(__file__).parents[2]
SMALL = pictures.Kind(96, 128, ".jpg", objects=5, points=12, things=8, stuff=11)


@pytest.fixture
def small_pictures(monkeypatch):
    """Pictures of every kind become small, and so do the crops."""
    monkeypatch.setattr(cases, "KINDS", dict.fromkeys(pictures.KINDS, SMALL))
    monkeypatch.setattr(
        cases,
        "CASES",
        tuple(
            cases.Case(
                c.mapper,
                c.pictures,
                c.ground_truth,
                (*c.overrides, *shrunk(c.overrides), "INPUT.IMAGE_SIZE", 96),
            )
            for c in cases.CASES
        ),
    )


def shrunk(overrides):
    sizes = ("INPUT.MIN_SIZE_TRAIN", (64, 96, 128), "INPUT.CROP.SIZE", [64, 96])
    if "INPUT.SIZE_DIVISIBILITY" in overrides:
        sizes += ("INPUT.SIZE_DIVISIBILITY", 96)
    if "INPUT.NEW_SAMPLING" in overrides:
        sizes += ("INPUT.NEW_SAMPLING_SHORTEST_SIDE_MIN", 64)
        sizes += ("INPUT.NEW_SAMPLING_SHORTEST_SIDE_MAX", 300)
    return sizes


class TestData:
    def test_every_mapper_equals_its_reference(self, small_pictures, tmp_path):
        for kind in pictures.KINDS:
            cases.register_pictures(tmp_path, kind, 3)
        for case in cases.chosen_cases(None, None):
            benchmark = measuring.MapperBenchmark(cases.config_of(case), 3)
            assert benchmark.check_parity(draws=2) == 2 * benchmark.samples

    def test_every_published_mapper_has_a_case(self):
        from mask2former.benchmark.commands.data import MAPPERS, PICTURES
        from mask2former.data.dataset_mappers import DATASET_MAPPERS

        published = {
            n for n, m in DATASET_MAPPERS.items() if m.__module__.startswith("mask2former")
        }
        assert {case.mapper for case in cases.CASES} == published
        assert set(MAPPERS) == published
        assert set(PICTURES) == set(pictures.KINDS)

    def test_figures_are_printed_and_written(self, small_pictures, tmp_path, capsys):
        path = tmp_path / "figures.json"
        status = cli.main(
            ["data", "--mapper", "coco_instance_lsj", "coco_panoptic_lsj", "--images", "2"]
            + ["--rounds", "2", "--warmups", "0", "--batch", "2", "--workers", "1"]
            + ["--json", str(path)]
        )
        assert status == 0
        content = json.loads(path.read_text())
        assert content["machine"]["torch"] == torch.__version__
        assert [r["mapper"] for r in content["results"]] == [
            "coco_panoptic_lsj",
            "coco_instance_lsj",
        ]
        for result in content["results"]:
            assert result["equal_samples"] == 6
            assert len(result["seconds"]["reference"]) == 2
            ratio = result["ratio"]
            assert ratio["min"] <= ratio["median"] <= ratio["max"]
            assert result["loader"]["images_per_second"]["median"] > 0
        assert "images/s from 1 workers" in capsys.readouterr().out

    def test_without_parity_there_is_no_speed(self, small_pictures, monkeypatch, capsys):
        references = measuring.REFERENCES
        name = "COCOPanopticNewBaselineDatasetMapper"

        def wrong(mapper, record):
            mapped = references_before[name](mapper, record)
            mapped["image"][0, 0, 0] += 1
            return mapped

        references_before = dict(references)
        monkeypatch.setitem(references, name, wrong)
        monkeypatch.setattr(measuring, "alternate", None)  # timing anything would fail
        status = cli.main(["data", "--mapper", "coco_panoptic_lsj", "--images", "1"])
        assert status == 1
        assert "NOT EQUAL, not timed" in capsys.readouterr().out

    def test_a_config_of_ones_own(self, project, tmp_path):
        command = ["tools/benchmark.py", "data", "--config-file", project.config, "--images", "2"]
        command += ["--rounds", "1", "--warmups", "0"]
        result = subprocess.run(
            [sys.executable, *command], cwd=REPO, env=project.env, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "shapes_panoptic_train" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--mapper", "safetybarrier_instance_lsj", "--pictures", "cityscapes"], "no case has"),
            (["SEED", "3"], "--config-file only"),
            (["--config-file", "nowhere.yaml"], r"nowhere.yaml: no such file"),
        ],
    )
    def test_what_cannot_be_measured_is_said_in_one_line(self, capsys, arguments, message):
        assert cli.main(["data", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_help_names_the_subcommands_and_shows_examples(capsys):
    assert cli.main([]) == 0
    assert "data" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["data", "--help"])
    assert stop.value.code == 0
    assert "python tools/benchmark.py data --mapper" in capsys.readouterr().out


def test_a_folder_that_does_not_exist_is_refused_before_measuring(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["data", "--json", "/nowhere/at/all.json"])
    assert stop.value.code == 2
    assert "/nowhere/at does not exist" in capsys.readouterr().err


def test_a_module_is_a_subcommand(monkeypatch, tmp_path, capsys):
    (tmp_path / "toast.py").write_text(
        '"""Browns bread.\n\nTwice."""\n\n'
        "def add_arguments(parser):\n    parser.add_argument('--slices', type=int)\n\n"
        "def run(args):\n    return args.slices\n"
    )
    monkeypatch.setattr(cli.commands, "__path__", [str(tmp_path)])
    assert cli.main(["toast", "--slices", "4"]) == 4
    cli.main([])
    assert "Browns bread." in capsys.readouterr().out


class TestTiming:
    def test_variants_alternate_and_warmups_do_not_count(self):
        calls = []
        variants = {name: lambda name=name: calls.append(name) for name in "abc"}
        rounds = alternate(variants, rounds=2, warmups=1)
        assert "".join(calls) == "abccbaabc"
        assert {len(s) for s in rounds.seconds.values()} == {2}

    def test_ratios_are_taken_within_rounds(self):
        rounds = Rounds({"slow": [4.0, 6.0, 40.0], "fast": [2.0, 2.0, 10.0]})
        assert rounds.ratio("slow", "fast").as_dict() == {"median": 3.0, "min": 2.0, "max": 4.0}
        assert rounds.rate("fast", 20).median == 10.0


class TestComparing:
    def sample(self, **changes):
        instances = Instances((2, 3))
        instances.gt_classes = torch.tensor([1])
        instances.gt_boxes = Boxes(torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
        return {
            "image": np.zeros((2, 3), np.uint8),
            "instances": instances,
            "n": [1, "a"],
        } | changes

    def test_equal_samples(self):
        assert first_difference(self.sample(), self.sample()) is None

    def test_the_first_difference_is_named(self):
        boxes = self.sample()
        boxes["instances"].gt_boxes.tensor[0, 2] = 5
        larger = self.sample()
        larger["instances"] = Instances((9, 9), **larger["instances"].get_fields())
        for other, named in (
            (self.sample(image=np.ones((2, 3), np.uint8)), "image: 6 of 6 values differ"),
            (self.sample(image=np.zeros((2, 3), np.int64)), "image: .*uint8.*int64"),
            (self.sample(n=[1, "b"]), r"n\[1\]: 'a' and 'b'"),
            (self.sample(n=None), "n: list and NoneType"),
            (self.sample(more=1), r"only one has \['more'\]"),
            (boxes, "instances.gt_boxes: 1 of 4 values differ"),
            (larger, r"instances.image_size: \(2, 3\) and \(9, 9\)"),
        ):
            with pytest.raises(AssertionError, match=named):
                raise AssertionError(first_difference(self.sample(), other))


def test_the_machine_is_described():
    from mask2former.benchmark import machine

    facts = machine.describe()
    assert facts["cores"] >= 1
    assert facts["torch"] in machine.headline(facts)
    assert facts["processor"] in machine.headline(facts)
