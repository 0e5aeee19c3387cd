"""train_net.py with SOLVER.COMPILE and MODEL.COMPILE: the same training, the same metrics."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine.tiny import REPO, TINY

import train_net
from mask2former.modeling import compiling


@pytest.fixture(autouse=True)
def fast_backend(monkeypatch):
    """The graphs as they are traced: inductor takes half a minute for each."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def flat(results: dict) -> dict[str, float]:
    return {f"{task}/{k}": v for task, values in results.items() for k, v in values.items()}


@pytest.mark.slow
def test_training_and_evaluation_compiled_give_the_same_weights_and_metrics(arguments, tmp_path):
    schedule = ["SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 0]
    schedule += ["DATASETS.TEST", "()", "SEED", 1]
    weights = {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        opts = [*schedule, "SOLVER.COMPILE", compiled, "OUTPUT_DIR", folder]
        train_net.main(arguments(*opts))
        weights[compiled] = folder / "model_final.pth"
    # One that was interrupted goes on.
    (tmp_path / "True" / "last_checkpoint").write_text("model_0000001.pth")
    train_net.main(arguments(*schedule, "OUTPUT_DIR", tmp_path / "True", resume=True))
    states = [torch.load(path, weights_only=False)["model"] for path in weights.values()]
    assert list(states[0]) == list(states[1])
    for name in states[0]:
        torch.testing.assert_close(states[1][name], states[0][name], atol=2e-4, rtol=1e-3)

    metrics = [
        flat(
            train_net.main(
                arguments(
                    *("MODEL.WEIGHTS", weights[True], "MODEL.COMPILE", compiled), eval_only=True
                )
            )
        )
        for compiled in (False, True)
    ]
    assert metrics[0].keys() == metrics[1].keys()
    for name, value in metrics[0].items():
        np.testing.assert_allclose(metrics[1][name], value, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("key", ["SOLVER.COMPILE", "MODEL.COMPILE"])
def test_without_a_compiler_the_script_ends_in_one_line(script_environment, tmp_path, key):
    command = [sys.executable, str(REPO / "train_net.py"), "--config-file", TINY, "--num-gpus", "0"]
    command += ["--eval-only"] if key.startswith("MODEL") else []
    command += [key, "True", "OUTPUT_DIR", str(tmp_path / "out")]
    environment = {**script_environment, "CXX": os.path.join(tmp_path, "no-such-compiler")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {key} True needs a C++ compiler, but ")
    assert f"set {key} False" in last
    assert "Traceback" not in done.stderr
