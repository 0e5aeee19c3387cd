#!/usr/bin/env python
"""Makes an ImageNet DiNAT (or NAT) checkpoint loadable as MODEL.WEIGHTS.

Input: a classification checkpoint of the DiNAT repository (weights at the top, or under "model" or
"state_dict"), or the same names in a .safetensors file. Names and values stay as they are.

    python tools/convert-pretrained-dinat-model-to-d2.py \\
        dinat_large_in22k_224_11x11interp.pth dinat_large_in22k_224.pkl

Then train with a DiNAT config, whose MODEL.WEIGHTS is that name. Expected in the load report:
backbone.norm0 to norm3 and the heads are missing (new), norm.* and head.* are left over.

The published configs have MODEL.DINAT.KERNEL_SIZE 11, and so need the file whose bias tables were
interpolated to it (11x11interp in its name): tables of kernel size 7 do not fit and would stay as
they were initialised.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.conversion import run_converter
from mask2former.conversion.dinat import unwrapped


def main(arguments: list[str] | None = None) -> int:
    """Converts IN to OUT; returns the exit status."""
    return run_converter(unwrapped, author="third_party", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
