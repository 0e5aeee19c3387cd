#!/usr/bin/env python
"""Converts Mask2Former checkpoints of other projects to this one, and ours to Hugging Face.

IN may be
  - a file of the Mask2Former zoo or of this project (.pkl, .pth), also of older layouts;
  - a folder of Hugging Face (model.safetensors or pytorch_model.bin, also in shards, with
    config.json), or its weights file;
  - a checkpoint of mmdetection 2 or 3 (.pth).
The format is recognised by the names. Nothing a file contains is run.

Import: writes OUT.pth, beside it OUT.yaml (a config with the backbone, queries, classes and layers
that the weights have), and with --report what became of every key.

    python tools/import_weights.py facebook-mask2former-swin-tiny/ swin_tiny.pth --report report.txt
    python tools/import_weights.py mask2former_r50_mmdet.pth r50.pth
    python train_net.py --eval-only --config-file r50.yaml MODEL.WEIGHTS r50.pth

Export: writes a folder for Mask2FormerForUniversalSegmentation.from_pretrained.

    python tools/import_weights.py --to hf model_final.pth my-hub-folder/ \\
        --config-file configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.conversion.formats import FORMATS, Imported, import_checkpoint, write_config
from mask2former.conversion.hub_folder import write_hub_folder
from mask2former.conversion.state import save
from mask2former.engine.errors import USER_ERRORS, WeightsError


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN", help="checkpoint file, or folder of Hugging Face")
    parser.add_argument("output", metavar="OUT", type=Path, help=".pth file (--to hf: a folder)")
    parser.add_argument("--to", choices=("ours", "hf"), default="ours", help="(ours)")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("auto", *FORMATS),
        default="auto",
        help="format of IN, if it is not recognised (auto)",
    )
    parser.add_argument(
        "--config-file",
        metavar="YAML",
        help="the network's config; without it, it is read off the weights",
    )
    parser.add_argument(
        "--base-config",
        metavar="YAML",
        help="config that the written one extends: data set, schedule (default: the published one "
        "with as many classes)",
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="every key's fate, as .json or text"
    )
    parser.add_argument("--dataset", metavar="NAME", help="--to hf: whose class names to write")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="write OUT even if weights of the network are missing in IN",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Converts; returns the exit status: 0, or 2 after an error of the user."""
    args = get_parser().parse_args(arguments)
    try:
        convert(args)
    except (*USER_ERRORS, OSError, KeyError) as error:
        # Names that no registry has are KeyErrors, whose text is quoted.
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2
    return 0


def convert(args: argparse.Namespace) -> None:
    """The work of the script, for parsed arguments."""
    for name in (args.config_file, args.base_config):
        if name is not None and not Path(name).is_file():
            raise WeightsError(f"{name}: there is no such config file")
    if args.to == "ours" and args.output.suffix != ".pth":
        raise WeightsError(f"{args.output}: OUT must end in .pth")
    if args.output.exists() and Path(args.input).resolve() == args.output.resolve():
        raise WeightsError(f"{args.output}: OUT is IN")
    imported = import_checkpoint(
        args.input, source=args.source, config_file=args.config_file, base=args.base_config
    )
    state = imported.state
    print(f"{args.input}: {imported.source}; {state.summary()}")
    for kind, names in (
        ("missing", state.missing),
        ("left over", state.left_over),
        ("other shape", list(state.mismatched)),
    ):
        if names:
            print(f"  {kind}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    if args.report:
        state.write_report(args.report, f"{args.input} ({imported.source}) -> {args.output}")
        print(f"{args.report}: what became of every key")
    if not args.allow_missing:
        state.refuse_incomplete(args.input)
    if args.to == "hf":
        _write_hub_folder(imported, args)
    else:
        _write_ours(imported, args)


def _write_ours(imported: Imported, args: argparse.Namespace) -> None:
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save(imported.state.weights, args.output, f"mask2former, imported from {imported.source}")
    print(f"{args.output}: written")
    config = args.config_file
    if config is None:
        config = args.output.with_suffix(".yaml")
        write_config(imported, config, args.output)
        base = f" on {imported.base}" if imported.base else "; add DATASETS and SOLVER"
        print(f"{config}: config read off the weights{base}")
    print(
        f"try: python train_net.py --eval-only --config-file {config} MODEL.WEIGHTS {args.output}"
    )


def _write_hub_folder(imported: Imported, args: argparse.Namespace) -> None:
    labels = write_hub_folder(imported.state.weights, imported.cfg, args.output, args.dataset)
    print(f"{args.output}: model.safetensors, config.json and preprocessor_config.json written")
    if labels is None:
        name = args.dataset or next(iter(imported.cfg.DATASETS.TRAIN), "none")
        print(
            f"  class names: LABEL_i, since the data set ({name}) has none that fit; --dataset NAME"
        )


if __name__ == "__main__":
    sys.exit(main())
