"""tools/benchmark.py infer, train, post, op, eval: parity before speed. No time is judged."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from mask2former.benchmark import cli
from mask2former.benchmark.commands import table
from mask2former.benchmark.evaluators import panoptic_reference
from mask2former.benchmark.networks import (
    building,
    inference,
    parity,
    peak_memory,
    post,
    reporting,
    training,
)
from mask2former.benchmark.networks.setting import Setting
from mask2former.engine.errors import ConfigError

TINY = "tests/fixtures/engine/tiny.yaml"
SMALL = ["--size", "64", "96", "--rounds", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(reporting, "WARMUPS", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def untimed(monkeypatch):
    """Timing anything fails."""
    monkeypatch.setattr(reporting, "alternate", None)


def command(what, *more):
    return [what, "--config-file", TINY, *SMALL, *more]


def setting(**changes):
    return dataclasses.replace(
        Setting(TINY, size=(64, 96), output=(50, 70), threads=1, images=1), **changes
    )


class TestInfer:
    @pytest.mark.parametrize("peer", ["transformers", "reference"])
    def test_logits_are_compared_before_ratios_are_printed(self, peer, tmp_path, capsys):
        if peer == "transformers":
            pytest.importorskip("transformers")
        path = tmp_path / "figures.json"
        assert cli.main(command("infer", "--peer", peer, "--json", str(path))) == 0
        content = json.loads(path.read_text())
        assert set(content["parity"]) == {"class logits", "mask logits"}
        assert max(content["parity"].values()) < parity.TOLERANCE
        assert set(content["seconds"]) == {"mask2former", peer, "product"}
        assert content["ratios"][peer]["median"] > 0
        assert content["fraction_of_peak"]["median"] > 0
        assert content["operations"] > 1e7
        printed = capsys.readouterr().out
        assert printed.index("parity: class logits") < printed.index("ours is")

    @pytest.mark.parametrize("peer", ["transformers", "reference"])
    def test_without_parity_there_is_no_speed(self, peer, untimed, monkeypatch, capsys):
        if peer == "transformers":
            pytest.importorskip("transformers")
        kind = inference.KINDS[peer]
        monkeypatch.setattr(
            kind, "logits", lambda self, logits=kind.logits: [1.01 * x for x in logits(self)]
        )
        assert cli.main(command("infer", "--peer", peer)) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("NOT EQUAL, not timed: class logits")
        assert "ours is" not in captured.out

    def test_in_bfloat16_the_peer_is_timed_in_both_precisions(self, capsys):
        assert cli.main(command("infer", "--peer", "reference", "--dtype", "bfloat16")) == 0
        printed = capsys.readouterr().out
        assert "peer's class logits" in printed
        assert "reference float32" in printed

    def test_a_network_that_transformers_lacks_is_one_line(self, untimed, capsys):
        pytest.importorskip("transformers")
        config = "configs/shapes/panoptic-segmentation/maskformer2_convnext_tiny_timm.yaml"
        options = [*SMALL, "MODEL.TIMM.PRETRAINED", "False"]
        assert cli.main(["infer", "--config-file", config, *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--config-file", "nowhere.yaml"], "nowhere.yaml: no such file"),
            (["--config-file", TINY, "MODEL.FASTER", "True"], "no config key MODEL.FASTER"),
            (["--config-file", TINY, "--device", "cuda"], "torch finds no GPU"),
        ],
    )
    def test_what_cannot_be_measured_is_one_line(self, arguments, message, capsys):
        if "cuda" in arguments and torch.cuda.is_available():
            pytest.skip("there is a GPU")
        assert cli.main(["infer", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1

    def test_all_kinds_give_panoptic_segments(self):
        pytest.importorskip("transformers")
        network = building.build_network(setting().config())
        for kind in inference.KINDS:
            segments = inference.make(kind, setting(), network).segments()
            if kind == "transformers":
                found, size = segments[0][0]["segments_info"], segments[0][0]["segmentation"].shape
            else:
                ids, found = segments[0]["panoptic_seg"]
                size = ids.shape
            assert len(found) >= 2
            assert tuple(size) == (50, 70)


class TestTrain:
    def test_losses_and_gradients_are_compared(self, tmp_path, capsys):
        pytest.importorskip("transformers")
        path = tmp_path / "figures.json"
        options = ["--json", str(path), "MODEL.BACKBONE.FREEZE_AT", "2"]
        assert cli.main(command("train", "--images", "2", *options)) == 0
        found = json.loads(path.read_text())["parity"]
        assert found["total loss"] < 1e-6
        assert found["gradient norm"] < 1e-5
        assert "ours is" in capsys.readouterr().out

    def test_other_losses_are_not_timed(self, untimed, monkeypatch, capsys):
        monkeypatch.setattr(
            training.Reference, "loss", lambda self: 1.001 * training.Ours.loss(self)
        )
        assert cli.main(command("train", "--peer", "reference")) == 1
        assert "NOT EQUAL, not timed: total loss" in capsys.readouterr().err

    def test_the_same_points_come_from_every_draw(self):
        with training.same_points():
            a, b = torch.rand(1, 5, 2), torch.rand((3, 5, 2))
        torch.testing.assert_close(b, a.expand(3, 5, 2))
        assert not torch.equal(torch.rand(1, 5, 2), a)


class TestPost:
    arguments = ("post", "--size", "96", "130", "--output-size", "60", "80", "--queries", "30")

    def test_maps_are_compared_with_the_plain_formula(self, capsys):
        assert cli.main([*self.arguments, "--classes", "12", "--rounds", "1"]) == 0
        printed = capsys.readouterr().out
        assert "panoptic ids 1.0" in printed
        assert "plain" in printed

    def test_another_map_is_not_timed(self, monkeypatch, capsys):
        def wrong(*args):
            ids, segments = plain(*args)
            return ids.roll(1), segments

        plain = post.segment_plainly.__globals__["_panoptic"]
        monkeypatch.setitem(post.segment_plainly.__globals__, "_panoptic", wrong)
        assert cli.main([*self.arguments, "--tasks", "panoptic"]) == 1
        assert "NOT EQUAL" in capsys.readouterr().err


class TestEval:
    def test_panoptic_quality_is_identical(self, capsys):
        assert cli.main(["eval", "--images", "2", "--rounds", "1"]) == 0
        printed = capsys.readouterr().out
        for subject in ("published evaluator", "files"):
            start = printed.index(f"{subject}: parity: mean PQ ")
            assert "ms an image" in printed[start:]

    def test_another_quality_is_not_timed(self, monkeypatch, capsys):
        monkeypatch.setattr(
            panoptic_reference, "_qualities", lambda *sums: {"pq": 0.0, "sq": 0.0, "rq": 0.0}
        )
        assert cli.main(["eval", "--images", "1"]) == 1
        assert "NOT EQUAL" in capsys.readouterr().err


class TestOp:
    def test_without_parity_there_is_no_speed(self, monkeypatch, capsys):
        from mask2former.ops import benchmark, libraries

        def differ(*args, **options):
            raise RuntimeError("large: kernel and reference differ by 1.0e+00; not timed")

        monkeypatch.setattr(libraries, "load", lambda *args: None)
        monkeypatch.setattr(benchmark, "compare", differ)
        assert cli.main(["op"]) == 1
        assert "NOT EQUAL, not timed: large" in capsys.readouterr().err


def _hungry(kind, setting):
    return lambda: torch.ones(int(kind) * 2**18).sum()  # 4 bytes each


def test_peak_memory_is_what_a_call_adds():
    extra = peak_memory.extra_mebibytes(_hungry, "64", setting())
    assert 60 < extra < 90


def test_settings_name_what_is_missing():
    with pytest.raises(ConfigError, match="no such file"):
        setting(config_file="nowhere.yaml").config()


class TestTable:
    def test_measurements_become_lines_of_markdown(self, tmp_path, monkeypatch):
        row = table.Row("Panoptic evaluation", ("eval", "--images", "1", "--rounds", "1"))
        monkeypatch.setattr(table, "CPU", (row,))
        path = tmp_path / "new" / "bench.md"
        assert cli.main(["table", "--only", "Panoptic evaluation", "--output", str(path)]) == 0
        assert "| Panoptic evaluation | published evaluator | " in path.read_text()
        assert "| Panoptic evaluation | files | " in path.read_text()

    def test_a_failure_is_a_line_too(self, tmp_path, monkeypatch):
        row = table.Row("Broken", ("infer", "--config-file", "nowhere.yaml"))
        monkeypatch.setattr(table, "CPU", (row,))
        path = tmp_path / "bench.md"
        assert cli.main(["table", "--output", str(path)]) == 1
        assert "nowhere.yaml: no such file" in path.read_text()

    def test_every_command_line_of_it_is_possible(self):
        parser = cli.get_parser()
        for row in (*table.CPU, *table.CUDA):
            args = parser.parse_args(row.arguments)
            config = getattr(args, "config_file", None)
            assert config is None or Path(config).is_file()

    def test_waits_and_the_ops_yardsticks_are_shown(self):
        op = {"name": "large", "ratio": 9, "lowest_ratio": 8, "highest_ratio": 10}
        op |= {"published": [2, 1.5, 2.5], "bound_seconds": 0.1, "kernel_seconds": 0.4}
        result = {"synchronisations": {"training": {"waits": 2}}, "results": [op]}
        assert table.table_rows("R50", result) == [
            "| R50, training | goal: at most 3 | 2 times | |",
            "| R50, large | reference | 9.00x (8.00-10.00) | |",
            "| R50, large | published algorithm | 2.00x (1.50-2.50) | |",
            "| R50, large | a copy of as many bytes | 0.25 of its speed | |",
        ]

    def test_memory_and_peak_are_shown(self):
        ratio = {"median": 2.0, "min": 1.5, "max": 2.5}
        result = {
            "ratios": {"transformers": ratio},
            "extra_mebibytes": {"mask2former": 30.0, "transformers": 60.0},
            "fraction_of_peak": {"median": 0.7, "min": 0.6, "max": 0.8},
        }
        assert table.table_rows("R50", result) == [
            "| R50 | transformers | 2.00x (1.50-2.50) | 0.50 of it |",
            "| R50 | matrix products | 0.70 (0.60-0.80) of their speed | |",
        ]
