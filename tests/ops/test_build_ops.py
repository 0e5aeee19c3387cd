"""build_ops.py: kernels where a compiler is at hand, one clear line and no failure elsewhere."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def build_ops():
    spec = importlib.util.spec_from_file_location("build_ops", ROOT / "build_ops.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_compiler_it_says_so_and_goes_on(build_ops, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not build_ops.build_library("cpu", tmp_path / "x.so")
    line = capsys.readouterr().out
    assert "CPU kernels NOT built: no C++ compiler was found" in line
    assert "slower PyTorch path" in line


def test_a_compiler_that_fails_leaves_what_was_there(build_ops, monkeypatch, tmp_path, capsys):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'x.cpp:1: error: no luck' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    target = tmp_path / "x.so"
    target.write_text("the one before")
    assert not build_ops.build_library("cpu", target)
    assert "x.cpp:1: error: no luck" in capsys.readouterr().out
    assert target.read_text() == "the one before"


def test_setup_succeeds_when_nothing_can_be_built(tmp_path):
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    command += ["--build-temp", str(tmp_path / "temp")]
    environment = {**os.environ, "CXX": "false", "CUDA_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "CPU kernels NOT built: false failed" in done.stdout
    assert f"CUDA kernels NOT built: CUDA_HOME is {tmp_path}, but there is no" in done.stdout
    assert not list(tmp_path.rglob("*.so"))


def test_an_install_leaves_kernels_for_the_scripts_of_the_checkout(tmp_path):
    """``train_net.py`` imports the checkout's own package, whatever is installed."""
    (tmp_path / "mask2former/ops/csrc").mkdir(parents=True)
    for name in ("build_ops.py", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    source = tmp_path / "mask2former/ops/csrc/ms_deform_attn_cpu.cpp"
    source.write_text("any")
    compiler = tmp_path / "compiler"  # writes "compiled" where -o says
    compiler.write_text('#!/bin/sh\nfor last; do :; done\necho compiled > "$last"\n')
    compiler.chmod(0o755)
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    environment = {**os.environ, "CXX": str(compiler)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    library = "mask2former/ops/libms_deform_attn_cpu.so"
    assert (tmp_path / "lib" / library).read_text() == "compiled\n"
    assert (tmp_path / library).read_text() == "compiled\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "op",
    [
        "ms_deform_attn",
        "neighborhood_attention",
        "mask_strips",
        "token_layers",
        "winograd",
        "id_maps",
    ],
)
def test_a_compiler_at_hand_builds_a_library_that_loads(op, build_ops, tmp_path, capsys):
    target = tmp_path / "kernels.so"
    if not build_ops.build_library("cpu", target, op):
        pytest.skip(capsys.readouterr().out)
    assert ctypes.CDLL(str(target)).mask2former_cpu_abi() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "op", ["ms_deform_attn", "neighborhood_attention", "ms_deform_attn_yardstick"]
)
def test_the_cuda_kernels_compile(op, build_ops, monkeypatch, tmp_path, capsys):
    """Wherever there is a toolkit, GPU or not."""
    homes = [Path(os.environ.get("CUDA_HOME", "/nowhere")), *Path("/usr/local").glob("cuda*")]
    homes = [home for home in homes if (home / "bin" / "nvcc").exists()]
    if not homes:
        pytest.skip("no CUDA toolkit (nvcc)")
    monkeypatch.setenv("CUDA_HOME", str(homes[0]))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    target = tmp_path / "kernels.so"
    assert build_ops.build_library("cuda", target, op), capsys.readouterr().out
    assert ctypes.CDLL(str(target)).mask2former_cuda_abi() > 0


def test_an_install_has_the_kernels_of_every_op(build_ops):
    names = {extension.name.rpartition(".lib")[2] for extension in build_ops.extensions()}
    both = {"ms_deform_attn", "neighborhood_attention"}
    cpu_only = {"mask_strips_cpu", "token_layers_cpu", "winograd_cpu", "id_maps_cpu"}
    assert names == cpu_only | {f"{op}_{d}" for op in both for d in ("cpu", "cuda")}


def test_the_yardstick_is_not_installed(build_ops):
    assert not [x.name for x in build_ops.extensions() if "yardstick" in x.name]


def test_an_unknown_option_is_named():
    command = [sys.executable, "build_ops.py", "--yardstik"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("build_ops.py: unknown option --yardstik")


@pytest.mark.parametrize(
    "wanted,expected",
    [
        ("9.0", [("90", False)]),
        ("8.0;9.0+PTX", [("80", False), ("90", True)]),
        ("7.5 9.0a", [("75", False), ("90a", False)]),
    ],
)
def test_torchs_list_of_architectures_is_understood(build_ops, monkeypatch, wanted, expected):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", wanted)
    assert build_ops._cuda_architectures(Path("nvcc")) == expected


def test_an_architecture_that_is_none_is_named(build_ops, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
    with pytest.raises(
        build_ops.NotBuilt, match=r"TORCH_CUDA_ARCH_LIST is 'Hopper'.*8\.0;9\.0\+PTX"
    ):
        build_ops._cuda_architectures(Path("nvcc"))
