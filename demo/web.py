#!/usr/bin/env python
"""A page in the browser: drop an image, see what the model sees, take it away.

    make quickstart                       # once: trains the small model that is the default
    make web                              # or: python demo/web.py

Another model::

    python demo/web.py --config-file CONFIG.yaml --examples photos/ --opts MODEL.WEIGHTS w.pth
"""

import argparse
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too
# Idle threads sleep, not spin: on cores that others use too, spinning made a tiny model 80 times
# slower. Is read when torch is loaded.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

from media import expand_inputs

import mask2former  # noqa: F401 - registers models and data sets
from detectron2.utils.logger import setup_logger
from mask2former.engine.checkpoint import check_weights_exist
from mask2former.engine.errors import USER_ERRORS, UserError
from mask2former.engine.setup import load_config

REPO = Path(__file__).resolve().parent.parent
QUICKSTART = REPO / "configs/shapes/panoptic-segmentation/maskformer2_R50_tiny.yaml"
QUICKSTART_WEIGHTS = REPO / "output/quickstart/model_final.pth"


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Segment images in the browser.",
        epilog="examples:\n"
        "  python demo/web.py                     the model of `make quickstart`\n"
        "  python demo/web.py --config-file C.yaml --examples photos/ --opts MODEL.WEIGHTS w.pth\n"
        "  python demo/web.py --host 0.0.0.0 --port 8080     for everybody in the network\n\n"
        "The tasks to choose from are those that MODEL.MASK_FORMER.TEST.{PANOPTIC,INSTANCE,\n"
        "SEMANTIC}_ON switch on.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="YAML config (default: that of the quickstart)")
    add("--host", default="127.0.0.1", help="address to serve on (default: this machine only)")
    add("--port", type=int, default=7860, help="(default: %(default)s; 0: any that is free)")
    add(
        "--examples",
        nargs="+",
        default=[],
        metavar="PATH",
        help="images, folders or patterns to pick from (default: some of the data set shapes, "
        "where it is the quickstart's model)",
    )
    add("--threshold", type=float, default=0.5, metavar="P", help="at first (default: 0.5)")
    add(
        "--opts",
        default=[],
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config overrides; must come last",
    )
    return parser


def configuration(args: argparse.Namespace):
    """The frozen config of the arguments, with weights that exist.

    Raises:
        UserError: what is missing, and which command makes it.
    """
    cfg = load_config(args.config_file or str(QUICKSTART), args.opts, need_data=False)
    if args.config_file is None and "MODEL.WEIGHTS" not in args.opts:
        if not QUICKSTART_WEIGHTS.is_file():
            raise UserError(
                f"there is no {QUICKSTART_WEIGHTS}: `make quickstart` makes it (about 10 minutes); "
                "or name another model with --config-file FILE --opts MODEL.WEIGHTS FILE"
            )
        cfg.MODEL.WEIGHTS = str(QUICKSTART_WEIGHTS)
    if not cfg.MODEL.WEIGHTS:
        raise UserError("no weights: give --opts MODEL.WEIGHTS FILE")
    check_weights_exist(cfg.MODEL.WEIGHTS)
    cfg.freeze()
    return cfg


def example_images(args: argparse.Namespace, most: int = 10) -> list[Path]:
    """Images for people who have none at hand."""
    if args.examples:
        return expand_inputs(args.examples)[:most]
    if args.config_file is not None:
        return []
    folder = Path(os.environ.get("DETECTRON2_DATASETS", REPO / "datasets")) / "shapes" / "val"
    return sorted(folder.glob("*.jpg"))[:most]


def free_port(host: str, port: int) -> int:
    """``port`` if nobody listens there, or any free one for 0.

    Raises:
        UserError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"--host {host} --port {port}: {error.strerror}") from error
        return probe.getsockname()[1]


def build(args: argparse.Namespace):
    """The page of the arguments.

    Raises:
        UserError, OSError, ValueError: something that the user can mend.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # is read on import
    from mask2former.inference import Predictor
    from mask2former.inference.web import Segmenter, build_app

    cfg = configuration(args)
    examples = example_images(args)
    name = f"{Path(args.config_file or QUICKSTART).stem}, {Path(cfg.MODEL.WEIGHTS).name}"
    predictor = Predictor(cfg)
    predictor.require_trained()
    segmenter = Segmenter(predictor, name)
    return build_app(segmenter, examples=examples, threshold=args.threshold)


def main(argv: list[str] | None = None) -> int:
    """Serves until Ctrl-C; returns the exit status."""
    args = get_parser().parse_args(argv)
    setup_logger(name="fvcore")
    setup_logger(name="mask2former")
    try:
        port = free_port(args.host, args.port)
        app = build(args)
        from mask2former.inference.web.app import LAUNCH

        app.launch(server_name=args.host, server_port=port, **LAUNCH)
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        print("web.py: the package gradio is missing: pip install gradio", file=sys.stderr)
        return 2
    except (*USER_ERRORS, OSError, ValueError) as error:
        print(f"web.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
