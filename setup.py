"""Builds mask2former: pure Python plus compiled kernels of its ops, which are optional.

Metadata is in pyproject.toml. The kernels need a C++ compiler (and CUDA_HOME for the GPU ones) but
not torch, so this file imports nothing that is not already there; where they cannot be built the
install goes on, says so, and the slower PyTorch path is used.
"""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_ops import BuildOps, extensions

setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOps})
