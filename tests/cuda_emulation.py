"""CUDA sources as libraries for the CPU: tests/fixtures/cuda_on_cpu stands for CUDA's headers.

Blocks run one after another, the threads of a block as threads of the machine. That shows wrong
arithmetic, wrong indices, reading what no thread has written, and barriers that not all threads
reach; it shows nothing of speed, and races by chance only.
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mask2former.ops import libraries

SOURCES = libraries.FOLDER / "csrc"
SHIM = Path(__file__).parent / "fixtures" / "cuda_on_cpu"
SHARED_MEMORY = """
namespace { alignas(64) unsigned char shared_memory[1 << 18]; }
unsigned char* shared_memory_of(size_t bytes) {
  for (unsigned char& byte : shared_memory) byte = 0xff;  // not a number, in every dtype
  return bytes <= sizeof(shared_memory) ? shared_memory : throw bytes;
}
"""


def library_for_cpu(op: str, folder: Path, launches: int) -> ctypes.CDLL:
    """Compiles ``<op>_cuda.cu`` into a folder; skips the test where there is no compiler.

    Args:
        op: as in :mod:`mask2former.ops.libraries`.
        launches: how many ``kernel<<<...>>>(problem)`` its source has.
    """
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("no g++")
    source = (SOURCES / f"{op}_cuda.cu").read_text()
    source, found = re.subn(r"(\w+)<<<(.+?)>>>\((\w+)\);", r"launch_on_cpu(\1, \2, \3);", source)
    assert found == launches
    # Shared memory of a fixed size is that of the one block that runs.
    source = source.replace("  __shared__ float", "  static float")
    (folder / "kernels.cpp").write_text(source + SHARED_MEMORY)
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", "-I", SHIM]
    command += ["-I", SOURCES, folder / "kernels.cpp", "-o", folder / "kernels.so"]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(folder / "kernels.so"))
    libraries._declare(library, "cuda", op)
    return library
