"""train_net.py as a program: published command lines, several processes, user errors."""

import re
import subprocess
import sys

import pytest
from engine.tiny import REPO, TINY

SCRIPT = str(REPO / "train_net.py")


@pytest.fixture
def run(script_environment, tmp_path):
    def start(*arguments, launcher=(sys.executable,), timeout=300):
        command = [*launcher, SCRIPT, *map(str, arguments)]
        return subprocess.run(
            command,
            env=script_environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return start


def torchrun(processes):
    options = ("--standalone", "--nproc_per_node", str(processes))
    return (sys.executable, "-m", "torch.distributed.run", *options)


def tables(output):
    """The logged results without the lines' heads: pipe tables and copypaste lines."""
    lines = (re.sub(r"^.*?(copypaste|\|)", r"\1", line) for line in output.splitlines())
    return [line for line in lines if line.startswith(("copypaste", "|"))]


@pytest.mark.slow
def test_trains_evaluates_and_prints_its_arguments(run, tmp_path):
    result = run("--config-file", TINY, "--num-gpus", 1, "SOLVER.MAX_ITER", 2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Command Line Args: Namespace(")
    assert "copypaste: PQ,SQ,RQ" in result.stdout
    assert (tmp_path / "output" / "model_final.pth").exists()  # the default OUTPUT_DIR


@pytest.mark.slow
def test_two_processes_evaluate_to_the_same_table(run, tmp_path):
    # Long enough, and on pictures it has seen, that the table holds more than zeros.
    learn = (
        "SOLVER.MAX_ITER",
        120,
        "SOLVER.BASE_LR",
        0.002,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
        1.0,
    )
    assert run("--config-file", TINY, "DATASETS.TEST", "()", *learn).returncode == 0
    evaluate = ("--eval-only", "--config-file", TINY, "MODEL.WEIGHTS", "output/model_final.pth")
    evaluate += ("DATASETS.TEST", "('shapes_panoptic_train_with_sem_seg',)")
    single = run(*evaluate, "OUTPUT_DIR", "single")
    double = run(*evaluate, "OUTPUT_DIR", "double", launcher=torchrun(2))
    assert single.returncode == double.returncode == 0, double.stderr
    (pq,) = re.findall(r"\|\s+All\s+\|\s+([\d.]+)", single.stdout)
    assert float(pq) > 1
    assert tables(double.stdout) == tables(single.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("launched_by", ["torchrun", "--num-gpus"])
def test_two_processes_train_together(run, tmp_path, launched_by):
    opts = ("SOLVER.MAX_ITER", 2, "OUTPUT_DIR", "out")
    if launched_by == "torchrun":
        result = run("--config-file", TINY, *opts, launcher=torchrun(2))
    else:
        result = run("--config-file", TINY, "--num-gpus", 2, "--dist-url", "auto", *opts)
    assert result.returncode == 0, result.stderr
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"model_final.pth", "log.txt", "log.txt.rank1", "metrics.json"} <= names
    assert "copypaste: PQ,SQ,RQ" in result.stdout


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("SOLVER.BASE_LRX", 1), "no config key SOLVER.BASE_LRX; nearest: SOLVER.BASE_LR"),
        (("DATASETS.TEST", "('shapes_panoptic_va',)"), "nearest: shapes_panoptic_val"),
        (("MODEL.WEIGHTS", "gone.pth"), "gone.pth: no such file"),
    ],
)
def test_user_errors_are_one_line_and_write_nothing(run, tmp_path, opts, message):
    result = run("--config-file", TINY, *opts)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_batch_that_two_processes_cannot_share_is_said_once(run):
    result = run("--config-file", TINY, "SOLVER.IMS_PER_BATCH", 3, launcher=torchrun(2))
    assert result.returncode != 0
    assert result.stderr.count("SOLVER.IMS_PER_BATCH is 3") == 1


def test_dinat_script_finds_the_data_where_its_repository_keeps_it(script_environment, tmp_path):
    (tmp_path / "M2F/datasets").mkdir(parents=True)
    environment = {k: v for k, v in script_environment.items() if k != "DETECTRON2_DATASETS"}
    config = REPO / "configs/ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml"
    result = subprocess.run(
        [sys.executable, str(REPO / "train_m2f.py"), "--config-file", str(config)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2
    assert "M2F/datasets/ADEChallengeData2016" in result.stderr
