"""tools/bench_gpu.py: one command on a bare machine, which says what is missing."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch


@pytest.fixture
def script(request):
    path = request.config.rootpath / "tools" / "bench_gpu.py"
    spec = importlib.util.spec_from_file_location("bench_gpu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sanitizer(tmp_path, monkeypatch):
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


def test_without_a_gpu_it_says_so(script, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert script.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: torch {torch.__version__} of {sys.executable} finds no GPU")
    assert len(error.splitlines()) == 1


def test_a_dry_run_shows_all_steps_in_order(script, sanitizer, capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    assert script.main(["--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"== {step}" for step in script.STEPS]
    kernels, tests, memcheck, table = lines[1:]
    assert kernels.endswith("build_ops.py --yardstick")
    assert "pytest -q -m gpu" in tests and "tests/ops/test_ms_deform_attn_cuda.py" in tests
    assert f"{sanitizer} --tool memcheck" in memcheck
    assert "PYTORCH_NO_CUDA_MEMORY_CACHING=1" in memcheck
    assert "tests/modeling" not in memcheck and "tests/ops/" in memcheck
    assert table.endswith("table --device cuda --output output/bench-gpu.md")


def test_a_machine_without_the_sanitizer_goes_on(script, capsys, monkeypatch):
    monkeypatch.setattr(script.shutil, "which", lambda *args, **options: None)
    assert script.main(["--dry-run", "--only", "sanitizer"]) == 0
    assert "== sanitizer: left out, compute-sanitizer is not installed" in capsys.readouterr().out


def test_what_pip_cannot_install_is_named_with_its_version(script, capsys, monkeypatch):
    monkeypatch.setattr(script, "gpu", lambda: "a GPU")
    monkeypatch.setattr(script, "missing", lambda: ["fvcore", "yacs"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    ran = []
    monkeypatch.setattr(script.subprocess, "run", ran.append)
    assert script.main([]) == 2
    assert ran[0][-2:] == script.pinned(["fvcore", "yacs"])
    error = capsys.readouterr().err
    assert "missing, and pip could not install them: fvcore==" in error
    assert "yacs==" in error and "PIP_FIND_LINKS" in error


def test_torch_is_never_installed_by_it(script, monkeypatch):
    monkeypatch.setattr(script.subprocess, "run", None)
    assert "torch" not in script.PACKAGES
    with pytest.raises(script.CannotMeasure, match="torchvision is missing"):
        script.install(["torchvision", "yacs"])


def test_every_package_is_pinned_but_torchvision_is_left_alone(script):
    names = list(script.PACKAGES.values())
    assert all("==" in pin for pin in script.pinned(names))


def test_a_step_that_fails_is_named_and_the_others_run(script, capsys, monkeypatch):
    class Done:
        returncode = 1

    ran = []
    monkeypatch.setattr(script, "gpu", lambda: "a GPU")
    monkeypatch.setattr(script.subprocess, "run", lambda c, **_: (ran.append(c), Done)[1])
    assert script.main(["--only", "tests", "table"]) == 1
    assert len(ran) == 2
    assert capsys.readouterr().err == "failed: tests, table\n"


def test_make_passes_arguments_on(request):
    command = ["make", "-n", "bench-gpu", "PYTHON=python9", "BENCH_GPU_ARGS=--dry-run"]
    # Not as a part of the make that may be running the tests, which announces folders.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        command, cwd=request.config.rootpath, capture_output=True, text=True, env=environ
    )
    assert done.stdout.strip() == "python9 tools/bench_gpu.py --dry-run"
