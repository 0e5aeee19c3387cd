#!/usr/bin/env python
"""Makes an ImageNet Swin checkpoint loadable as MODEL.WEIGHTS.

Input: a checkpoint of the Swin Transformer repository (weights under "model"), e.g.
https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth
or the same names in a .safetensors file. Names and values stay as they are.

    python tools/convert-pretrained-swin-model-to-d2.py \\
        swin_tiny_patch4_window7_224.pth swin_tiny_patch4_window7_224.pkl

Then train with a Swin config and MODEL.WEIGHTS swin_tiny_patch4_window7_224.pkl. Expected in the
load report: backbone.norm0 to norm3 and the heads are missing (new), norm.*, head.* and attn_mask
are left over. SeMask-Swin starts from the same file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.conversion import run_converter, under_model


def main(arguments: list[str] | None = None) -> int:
    """Converts IN to OUT; returns the exit status."""
    return run_converter(
        under_model, author="third_party", description=__doc__, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
