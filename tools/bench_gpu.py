#!/usr/bin/env python
"""Everything that is to be measured on a GPU, in one command on a bare machine: make bench-gpu.

    python tools/bench_gpu.py               # with a Python whose torch sees a GPU
    python tools/bench_gpu.py --dry-run     # only print the commands
    python tools/bench_gpu.py --only tests  # of packages, kernels, tests, sanitizer, table

Steps: the packages that are missing are installed (torch is left as it is); our CUDA kernels and
the published algorithm, their yardstick, are compiled for this GPU; tests that need a GPU run;
those of the kernels again under compute-sanitizer, if it is installed; then tools/benchmark.py
table.
Without internet, carry wheels and set PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER. docs/gpu.md has more.

Exit status: 0, or 1 if a step failed (the others have run), or 2 where nothing can be measured.
"""

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

# This file looks for packages that may be missing, so it can import none of them, nor mask2former.
ROOT = Path(__file__).resolve().parent.parent
STEPS = ("packages", "kernels", "tests", "sanitizer", "table")
# Module -> distribution of what the package, its GPU tests and the benchmarks import.
PACKAGES = {
    "fvcore": "fvcore",
    "iopath": "iopath",
    "yacs": "yacs",
    "timm": "timm",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scipy": "scipy",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "pycocotools": "pycocotools",
    "zlib_ng": "zlib-ng",
    "shapely": "shapely",
    "yaml": "PyYAML",
    "tabulate": "tabulate",
    "termcolor": "termcolor",
    "cloudpickle": "cloudpickle",
    "tqdm": "tqdm",
    "lxml": "lxml",
    "safetensors": "safetensors",
    "transformers": "transformers",
    "pytest": "pytest",
}
# Under the sanitizer nothing may hold memory back, which CUDA graphs do; compiling takes minutes.
NOT_SANITIZED = "not graph and not opcheck and not flex and not tiled"


class CannotMeasure(Exception):
    """Why, in words for the user."""


def main(argv: list[str] | None = None) -> int:
    """Runs the steps; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="steps (all)")
    parser.add_argument("--output", default="output/bench-gpu.md", metavar="FILE")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    args = parser.parse_args(argv)
    try:
        if not args.dry_run:
            print(gpu())
        return run(args)
    except CannotMeasure as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """The chosen steps one after another; what failed is said at the end."""
    failed = []
    for step in STEPS:
        if step not in args.only:
            continue
        if step == "packages":
            install(missing(), args.dry_run)
            continue
        command, extra = command_of(step, args.output)
        if not command:
            print(f"== {step}: left out, {extra}", flush=True)
            continue
        shown = [f"{name}={shlex.quote(value)}" for name, value in extra.items()]
        print(f"== {step}: {' '.join(shown)} {shlex.join(command)}", flush=True)
        if args.dry_run:
            continue
        start = time.monotonic()
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, **extra}).returncode
        print(f"== {step}: exit status {status} after {time.monotonic() - start:.0f} s", flush=True)
        if status:
            failed.append(step)
        if step == "kernels" and not (ROOT / "mask2former/ops/libms_deform_attn_cuda.so").exists():
            raise CannotMeasure("the CUDA kernels were not built, see the reason above")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def gpu() -> str:
    """The GPU and the versions.

    Raises:
        CannotMeasure: there is no torch, or it finds no GPU.
    """
    try:
        import torch
    except ImportError as error:
        raise CannotMeasure(f"{sys.executable} has no torch ({error})") from error
    if not torch.cuda.is_available():
        raise CannotMeasure(
            f"torch {torch.__version__} of {sys.executable} finds no GPU; "
            "make bench-gpu PYTHON=... takes another Python"
        )
    name = torch.cuda.get_device_name()
    return f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, Python {sys.version}"


def missing() -> list[str]:
    """Distributions that PACKAGES wants and that are not there."""
    return [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]


def pinned(names: list[str]) -> list[str]:
    """With the versions of requirements.txt, where it has them."""
    pins = dict(
        re.findall(r"^([\w.-]+)(==[^\s#]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    )
    return [name + pins.get(name, "") for name in names]


def install(names: list[str], dry_run: bool = False) -> None:
    """Installs packages; torch and what is there stay as they are.

    Raises:
        CannotMeasure: some could not be installed; they are named.
    """
    if not names:
        print("== packages: all are there", flush=True)
        return
    if "torchvision" in names:
        raise CannotMeasure("torchvision is missing: install the one that belongs to your torch")
    command = [sys.executable, "-m", "pip", "install", "--quiet", *pinned(names)]
    print(f"== packages: {shlex.join(command)}", flush=True)
    if dry_run:
        return
    subprocess.run(command)
    importlib.invalidate_caches()
    if still := missing():
        raise CannotMeasure(
            f"missing, and pip could not install them: {' '.join(pinned(still))}; "
            "without internet, carry their wheels (pip download elsewhere) and set "
            "PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER"
        )


def command_of(step: str, output: str) -> tuple[list[str], dict[str, str] | str]:
    """A step's command and variables; no command and the reason where it is left out."""
    python = sys.executable
    path = f"{ROOT}{os.pathsep}{ROOT / 'd2lite'}"
    tests = [str(file.relative_to(ROOT)) for file in gpu_tests()]
    if step == "kernels":
        return [python, "build_ops.py", "--yardstick"], cuda_variables()
    if step == "tests":
        return [python, "-m", "pytest", "-q", "-m", "gpu", *tests], {"PYTHONPATH": path}
    if step == "table":
        command = [python, "tools/benchmark.py", "table", "--device", "cuda", "--output", output]
        return command, {"PYTHONPATH": path}
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=f"{cuda_variables().get('CUDA_HOME', '')}/bin"
    )
    if not sanitizer:
        return [], "compute-sanitizer is not installed"
    ops = [test for test in tests if test.startswith(f"tests{os.sep}ops")]
    pytest = [python, "-m", "pytest", "-q", "-m", "gpu", "-k", NOT_SANITIZED, *ops]
    options = ["--tool", "memcheck", "--error-exitcode", "9", "--target-processes", "all"]
    return [sanitizer, *options, *pytest], {
        "PYTHONPATH": path,
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",  # or it sees PyTorch's blocks, not its tensors
    }


def gpu_tests() -> list[Path]:
    """Only these are collected: other tests need packages that a bare machine lacks."""
    return sorted(f for f in (ROOT / "tests").rglob("*.py") if "mark.gpu" in f.read_text())


def cuda_variables() -> dict[str, str]:
    """CUDA_HOME where nvcc is, and the architecture of this GPU, unless they are set."""
    found = {}
    if "CUDA_HOME" not in os.environ:
        # A link or script in /usr/local/bin leads nowhere; the toolkit's own folder comes first.
        nvcc = shutil.which("nvcc", path="/usr/local/cuda/bin") or shutil.which("nvcc")
        homes = [Path(nvcc).resolve().parents[1]] if nvcc else []
        homes += sorted(Path("/usr/local").glob("cuda-*"), reverse=True)
        homes = [h for h in homes if (h / "bin/nvcc").exists() and (h / "include").exists()]
        homes = [h for h in homes if (h / "include/cuda_runtime.h").exists()]
        if homes:
            found["CUDA_HOME"] = str(homes[0])
    if "TORCH_CUDA_ARCH_LIST" not in os.environ:
        import torch

        if torch.cuda.is_available():
            found["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability())
    return found


if __name__ == "__main__":
    sys.exit(main())
