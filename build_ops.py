"""Builds the compiled kernels of mask2former.ops. They are optional, and nothing here needs torch.

Used by setup.py; ``python build_ops.py [--force]`` builds them in place, in the source folder;
with ``--yardstick`` also the published algorithm for GPUs that benchmarks compare ours with.

The kernels are plain shared libraries with a C interface that Python loads with ctypes: for each op
one file for the CPU, built with the C++ compiler ($CXX, c++, g++ or clang++), and one for NVIDIA
GPUs, built with $CUDA_HOME/bin/nvcc where CUDA_HOME is set, for the architectures in
TORCH_CUDA_ARCH_LIST (as torch's own extensions: "8.0;9.0+PTX") or a usual set of them. What cannot
be built is reported in one line and left out; the slower PyTorch path does its work.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OPS = Path("mask2former/ops")
OP_NAMES = ("ms_deform_attn", "neighborhood_attention")
_SHARED = [OPS / f"csrc/cpu_{name}.h" for name in ("instruction_sets", "vectors", "math")]
# (op, device) -> the file that is compiled, then what it includes.
SOURCES = {
    (op, device): files
    for op in OP_NAMES
    for device, files in (
        ("cpu", [OPS / f"csrc/{op}_cpu.cpp", OPS / f"csrc/{op}_cpu_kernel.h", *_SHARED]),
        ("cuda", [OPS / f"csrc/{op}_cuda.cu"]),
    )
}
SOURCES["mask_strips", "cpu"] = [
    OPS / "csrc/mask_strips_cpu.cpp",
    OPS / "csrc/mask_strips_cpu_kernel.h",
    OPS / "csrc/mask_strips_best_class_cpu_kernel.h",
    *_SHARED,
]
SOURCES["token_layers", "cpu"] = [
    OPS / "csrc/token_layers_cpu.cpp",
    OPS / "csrc/token_layers_cpu_kernel.h",
    OPS / "csrc/cpu_blas.h",
    *_SHARED,
]
SOURCES["winograd", "cpu"] = [
    OPS / "csrc/winograd_cpu.cpp",
    OPS / "csrc/winograd_cpu_kernel.h",
    OPS / "csrc/cpu_blas.h",
    *_SHARED,
]
SOURCES["id_maps", "cpu"] = [OPS / "csrc/id_maps_cpu.cpp"]
SOURCES["neighborhood_attention", "cuda"].append(OPS / "csrc/neighborhood_attention_cuda_kernels.h")
# Not installed and not needed by anything but benchmarks.
YARDSTICK = {
    ("ms_deform_attn_yardstick", "cuda"): [OPS / "csrc/ms_deform_attn_yardstick_cuda.cu"],
}
# From Volta to Blackwell; nvcc is asked which of them it knows.
USUAL_CUDA_ARCHITECTURES = ["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]


class NotBuilt(Exception):
    """Why a library cannot be built here, in words for the user."""


def extensions() -> list[Extension]:
    """The libraries as setuptools knows them; optional, so a failure does not end an install."""
    return [
        Extension(
            f"mask2former.ops.lib{op}_{device}",
            sources=[str(files[0])],
            depends=[str(file) for file in files],
            optional=True,
        )
        for (op, device), files in SOURCES.items()
        if (ROOT / files[0]).exists()
    ]


class BuildOps(build_ext):
    """``build_ext`` that runs the compilers itself and never fails an install."""

    def get_ext_filename(self, fullname: str) -> str:
        """Plain ``.so``: the libraries belong to no Python version."""
        return fullname.replace(".", os.sep) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Builds one library, or says why not."""
        op, device = ext.name.rpartition(".lib")[2].rsplit("_", 1)
        target = Path(self.get_ext_fullpath(ext.name))
        if build_library(device, target, op):
            put_beside_source(target)


def build_library(device: str, target: Path, op: str = OP_NAMES[0]) -> bool:
    """Compiles an op's kernels for ``"cpu"`` or ``"cuda"``; says why if it cannot (False)."""
    name = {"cpu": "CPU", "cuda": "CUDA"}[device]
    build = {"cpu": _build_cpu, "cuda": _build_cuda}[device]
    try:
        how = build(ROOT / (SOURCES | YARDSTICK)[op, device][0], target)
    except NotBuilt as reason:
        without = f"On {name} the slower PyTorch path will be used."
        if (op, device) in YARDSTICK:
            without = "Benchmarks will leave it out."
        _say(f"{op}: {name} kernels NOT built: {reason}. {without}")
        return False
    _say(f"{op}: {name} kernels built ({how}): {target}")
    return True


def put_beside_source(library: Path) -> None:
    """Copies a library beside its Python code, as ``python build_ops.py`` leaves it.

    After ``pip install .``, train_net.py and tools/ still import the checkout that they lie in.
    """
    target = ROOT / OPS / library.name
    if target.exists() and target.samefile(library):
        return
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build_") as folder:
            os.replace(shutil.copy2(library, folder), target)
    except OSError as error:  # a source folder that is read only
        _say(f"{target} not written ({error}): scripts in this folder use the slower PyTorch path")


def build_in_place(force: bool = False, yardstick: bool = False) -> None:
    """Builds every library beside its Python code; what is newer than its sources is kept."""
    for (op, device), files in (SOURCES | (YARDSTICK if yardstick else {})).items():
        target = ROOT / OPS / f"lib{op}_{device}.so"
        sources = [ROOT / file for file in files] + [Path(__file__)]
        newest = max(file.stat().st_mtime for file in sources)
        if not force and target.exists() and target.stat().st_mtime > newest:
            _say(f"{target.name} is up to date")
            continue
        build_library(device, target, op)


def _build_cpu(source: Path, target: Path) -> str:
    compiler = _cpp_compiler()
    options = ["-O3", "-std=c++17", "-fPIC", "-shared", "-fno-trapping-math"]
    command = [*compiler, *options, str(source)]
    try:
        _compile([*command, "-fopenmp"], target)
    except NotBuilt as first:
        # A compiler without OpenMP (Apple's clang): one thread is still far better than none.
        try:
            _compile(command, target)
        except NotBuilt:
            raise first from None
        return f"{compiler[0]}, without OpenMP, so on one thread only"
    return compiler[0]


def _cpp_compiler() -> list[str]:
    if os.environ.get("CXX"):
        return os.environ["CXX"].split()
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise NotBuilt("no C++ compiler was found (install g++, or set CXX)")


def _build_cuda(source: Path, target: Path) -> str:
    home = os.environ.get("CUDA_HOME")
    if not home:
        raise NotBuilt("CUDA_HOME is not set (of interest with an NVIDIA GPU only)")
    nvcc = Path(home) / "bin" / "nvcc"
    if not nvcc.exists():
        raise NotBuilt(f"CUDA_HOME is {home}, but there is no {nvcc}")
    architectures = _cuda_architectures(nvcc)
    options = ["-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC", "-cudart", "static"]
    for number, with_ptx in architectures:
        options.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if with_ptx:
            options.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    _compile([str(nvcc), *options, "--threads", "0", str(source)], target)
    return f"{nvcc}, sm_" + " sm_".join(number for number, _ in architectures)


def _cuda_architectures(nvcc: Path) -> list[tuple[str, bool]]:
    """Pairs like ``("90", False)``: the architecture, and whether PTX for later ones is kept."""
    wanted = re.split(r"[;\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip())
    if wanted != [""]:
        parsed = [re.fullmatch(r"(\d+)\.(\d+[af]?)(\+PTX)?", item) for item in wanted]
        if not all(parsed):
            raise NotBuilt(
                f"TORCH_CUDA_ARCH_LIST is {os.environ['TORCH_CUDA_ARCH_LIST']!r}; "
                'expected numbers like "8.0;9.0+PTX"'
            )
        return [(match[1] + match[2], bool(match[3])) for match in parsed]
    listing = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"compute_(\d+)", listing.stdout))
    usual = [item.replace(".", "") for item in USUAL_CUDA_ARCHITECTURES]
    usual = [number for number in usual if not known or number in known]
    return [(number, number == usual[-1]) for number in usual]


def _compile(command: list[str], target: Path) -> None:
    """Runs a compiler; ``target`` appears complete or not at all, even under a running process."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build_") as folder:
        output = Path(folder) / target.name
        try:
            done = subprocess.run(
                [*command, "-o", str(output)], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise NotBuilt(f"{command[0]} cannot be run ({error})") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
            detail = (lines or done.stderr.splitlines() or ["no message"])[0].strip()
            raise NotBuilt(f"{command[0]} failed with: {detail}")
        os.replace(output, target)


def _say(line: str) -> None:
    print(f"[mask2former.ops] {line}", flush=True)


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - {"--force", "--yardstick"}:
        sys.exit(f"build_ops.py: unknown option {min(unknown)}; there are --force and --yardstick")
    build_in_place("--force" in sys.argv[1:], "--yardstick" in sys.argv[1:])
