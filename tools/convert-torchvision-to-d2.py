#!/usr/bin/env python
"""Makes a torchvision ResNet checkpoint loadable as MODEL.WEIGHTS.

Input: a plain state dict as torchvision publishes it, e.g.
https://download.pytorch.org/models/resnet101-63fe2227.pth; prints one "old -> new" line per weight.

    python tools/convert-torchvision-to-d2.py resnet101-63fe2227.pth R-101.pkl

Then train with a ResNet config and MODEL.WEIGHTS R-101.pkl. torchvision normalises RGB images: the
config needs INPUT.FORMAT RGB and torchvision's mean and deviation (the R50 and R101 configs of this
project have them), and MODEL.RESNETS.STRIDE_IN_1X1 False.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.conversion import run_converter
from mask2former.conversion.torchvision_resnet import convert_torchvision


def main(arguments: list[str] | None = None) -> int:
    """Converts IN to OUT; returns the exit status."""
    return run_converter(
        convert_torchvision, author="torchvision", description=__doc__, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
