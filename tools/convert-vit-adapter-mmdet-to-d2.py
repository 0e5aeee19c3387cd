#!/usr/bin/env python
"""Makes weights of ViT-Adapter, or of the BEiT it starts from, loadable as MODEL.WEIGHTS.

IN is recognised by its names:

* a Mask2Former of the ViT-Adapter repository (mmdetection 2), backbone and head, e.g.
  mask2former_beitv2_adapter_large_16x1_3x_coco-panoptic.pth, to evaluate or fine-tune:

    python tools/convert-vit-adapter-mmdet-to-d2.py \\
        mask2former_beitv2_adapter_large_16x1_3x_coco-panoptic.pth beitv2_adapter_large.pkl
    python train_net.py --eval-only MODEL.WEIGHTS beitv2_adapter_large.pkl --config-file \\
        configs/coco/panoptic-segmentation/vit_adapter/maskformer2_beitv2_adapter_large_bs16_3x.yaml

* a pretrained BEiT or BEiTv2 (patch 16) of the original repository or of timm (also .safetensors),
  to train from. Its relative position tables are resampled to the windows of the config:

    python tools/convert-vit-adapter-mmdet-to-d2.py \\
        beitv2_large_patch16_224_pt1k_ft21k.pth beitv2_large_patch16_224_pt1k_ft21k.pkl

OUT must end in .pkl.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.conversion import read_file, weights_in, write_pickle
from mask2former.conversion.vit_adapter import from_beit, from_vit_adapter_mmdet, is_detector
from mask2former.engine.errors import USER_ERRORS
from mask2former.engine.setup import load_config

CONFIG = (
    Path(__file__).resolve().parent.parent / "configs/coco/panoptic-segmentation/vit_adapter"
    "/maskformer2_beitv2_adapter_large_bs16_3x.yaml"
)


def main(arguments: list[str] | None = None) -> int:
    """Converts IN to OUT; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        weights = weights_in(read_file(args.input), args.input)
        if is_detector(weights):
            converted, report = from_vit_adapter_mmdet(
                weights, use_ema_buffers=args.ema == "buffers"
            )
        else:
            converted, report = from_beit(weights, _window_sizes(args.config_file))
        write_pickle(converted, args.output, author="third_party")
    except (*USER_ERRORS, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.output}: {report}")
    return 0


def _window_sizes(config_file: Path) -> list[int]:
    keys = load_config(str(config_file), [], need_data=False).MODEL.VIT_ADAPTER
    sizes = list(keys.WINDOW_SIZE)
    return sizes * keys.DEPTH if len(sizes) == 1 else sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN", type=Path, help=".pth or .safetensors file")
    parser.add_argument("output", metavar="OUT", type=Path, help=".pkl file to write")
    parser.add_argument(
        "--ema",
        choices=("names", "buffers"),
        default="names",
        help="where an mmdetection checkpoint holds the averaged weights: under the regular names, "
        "as its EMA hook leaves them (default), or in the ema_* buffers",
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        default=CONFIG,
        metavar="YAML",
        help="whose windows a BEiT is fitted to (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
