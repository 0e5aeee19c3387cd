#!/usr/bin/env python
"""Boundary AP of a COCO result file: how well outlines fit, not only areas.

    python tools/evaluate_coco_boundary_ap.py \\
        --gt-json-file datasets/coco/annotations/instances_val2017.json \\
        --dt-json-file output/inference/coco_instances_results.json

The measure is that of Cheng et al., "Boundary IoU", CVPR 2021: COCO's AP in which two masks overlap
by the smaller of their mask IoU and their boundary IoU. Only masks are looked at; boxes in the
result file are not. Works on all cores and needs no GPU.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.evaluation.average_precision import METRICS
from mask2former.evaluation.boundary_ap import boundary_average_precision
from mask2former.evaluation.errors import EvaluationError


def get_parser() -> argparse.ArgumentParser:
    """The published flags, and how many processes and by which package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gt-json-file", default="", help="COCO instance annotations (required)")
    parser.add_argument(
        "--dt-json-file", default="", help="coco_instances_results.json of an evaluation (required)"
    )
    parser.add_argument(
        "--iou-type",
        default="boundary",
        choices=("boundary", "segm", "bbox"),
        help="boundary (default); segm for ordinary mask AP; bbox for the masks' boxes",
    )
    parser.add_argument(
        "--dilation-ratio",
        default="0.020",
        type=float,
        help="width of boundaries as a share of the image's diagonal (0.020)",
    )
    parser.add_argument(
        "--num-processes", type=int, metavar="N", help="processes for the outlines (all cores)"
    )
    parser.add_argument(
        "--engine",
        default="fast",
        choices=("fast", "pycocotools"),
        help="who matches and averages: faster-coco-eval (fast, default) or pycocotools",
    )
    return parser


def main() -> int:
    """Evaluates and prints COCO's summary; the exit status."""
    args = get_parser().parse_args()
    try:
        if args.dilation_ratio <= 0:
            raise EvaluationError(f"--dilation-ratio must be positive, not {args.dilation_ratio}")
        ground_truth = read_json("--gt-json-file", args.gt_json_file, dict)
        results = read_json("--dt-json-file", args.dt_json_file, list)
        for key in ("images", "annotations", "categories"):
            if key not in ground_truth:
                raise EvaluationError(f"--gt-json-file {args.gt_json_file} has no {key!r}")
        print(f"{len(results)} results for {len(ground_truth['images'])} images", flush=True)
        evaluation = boundary_average_precision(
            ground_truth,
            results,
            iou_type=args.iou_type,
            dilation_ratio=args.dilation_ratio,
            engine=args.engine,
            processes=args.num_processes,
            progress=True,
        )
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(evaluation.summary)
    percent = [100 * value if value >= 0 else float("nan") for value in evaluation.stats]
    numbers = " ".join(f"{metric} {value:.3f}" for metric, value in zip(METRICS, percent))
    print(f"{args.iou_type}: {numbers}")
    return 0


def read_json(flag: str, path: str, kind: type) -> dict | list:
    """The content of a JSON file.

    Raises:
        EvaluationError: no such file, no JSON, or of another kind; the message names the flag.
    """
    if not path:
        raise EvaluationError(f"{flag} is missing (see --help)")
    try:
        with open(path) as file:
            content = json.load(file)
    except OSError as error:
        raise EvaluationError(f"{flag} {path}: {error.strerror}") from error
    except ValueError as error:
        raise EvaluationError(f"{flag} {path} is no JSON file: {error}") from error
    if not isinstance(content, kind):
        raise EvaluationError(
            f"{flag} {path} holds a {type(content).__name__}, where a {kind.__name__} is expected"
        )
    return content


if __name__ == "__main__":
    sys.exit(main())
