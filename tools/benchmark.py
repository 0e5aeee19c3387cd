#!/usr/bin/env python
"""Measures parts of this project against a readable reference, on this machine.

    python tools/benchmark.py --help
    python tools/benchmark.py data --help
    python tools/benchmark.py data --mapper coco_panoptic_lsj

Every subcommand is a module of mask2former/benchmark/commands.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
