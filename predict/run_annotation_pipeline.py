#!/usr/bin/env python
"""Pre-labels the images of a CVAT task: people correct instead of drawing.

    python predict/run_annotation_pipeline.py --input_dir task/ --output_dir proposals/ \\
        --config-file CONFIG.yaml --opts MODEL.WEIGHTS model_final.pth

``--input_dir`` holds ``images/`` and ``annotations.xml``: the task's export as "CVAT for images
1.1". Upload the written ``annotations.xml`` to the same task ("Upload annotations"). What people
drew stays as it is, byte for byte, unless ``--existing`` says otherwise.
"""

import argparse
import errno
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too
# Idle threads sleep, not spin: on cores that others use too, spinning made a tiny model 80 times
# slower. Is read when torch is loaded.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import mask2former  # noqa: F401 - registers models and data sets
from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger
from mask2former.data.cvat import read_label_attributes
from mask2former.engine.checkpoint import check_weights_exist
from mask2former.engine.errors import USER_ERRORS
from mask2former.engine.setup import load_config
from mask2former.inference import Predictor
from mask2former.inference.annotation import (
    EXISTING_POLICIES,
    AnnotationPipeline,
    MergeOptions,
    PipelineOptions,
    ProposalOptions,
)
from mask2former.inference.annotation.labels import check_labels, declared_attributes
from mask2former.inference.annotation.pipeline import Summary
from mask2former.inference.annotation.proposals import TASKS
from mask2former.inference.annotation.store import Store, fingerprint, only_run

_EXAMPLES = """examples:
  # everything with a score of at least 0.5, as masks
  python predict/run_annotation_pipeline.py --input_dir task --output_dir out \\
      --config-file C.yaml --opts MODEL.WEIGHTS w.pth
  # polygons people can drag, stricter for one class, renewing earlier proposals
  python predict/run_annotation_pipeline.py --input_dir task --output_dir out \\
      --config-file C.yaml --shape polygon --class-threshold toeboard=0.8 \\
      --existing replace-auto --opts MODEL.WEIGHTS w.pth

An interrupted run goes on where it stopped when it is started again.
"""


def get_parser() -> argparse.ArgumentParser:
    """The published flags, and ours."""
    parser = argparse.ArgumentParser(
        description="Write a model's predictions into a CVAT annotation file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--input_dir", required=True, metavar="DIR", help="holds images/ and annotations.xml")
    add("--output_dir", required=True, metavar="DIR", help="is created; see the files below")
    add("--config-file", required=True, metavar="FILE", help="YAML config of the model")
    add(
        "--confidence-threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="least score of an instance (default: %(default)s)",
    )
    add("--batch-size", type=int, default=4, metavar="N", help="images of one size per forward")
    add("--num-workers", type=int, default=4, metavar="N", help="threads that decode images")
    add(
        "--existing",
        choices=EXISTING_POLICIES,
        default="keep",
        help="shapes that are already there: keep all (default); replace those of a machine "
        "(source auto or semi-auto; CVAT keeps that source when people correct such a shape, so "
        "their corrections go too); replace all; or leave annotated images alone",
    )
    add(
        "--max-overlap",
        type=float,
        default=0.5,
        metavar="IOU",
        help="leave out proposals that overlap a kept shape of their label by more "
        "(default: %(default)s; 1 keeps all)",
    )
    add("--task", choices=("auto", *TASKS), default="auto", help="which output of the model")
    add("--shape", choices=("mask", "polygon"), default="mask", help="what is written")
    add(
        "--simplify",
        type=float,
        default=1.0,
        metavar="PX",
        help="polygons: error of their simplification in pixels (default: %(default)s)",
    )
    add(
        "--min-part",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="polygons: parts of an object smaller than this share of its largest part are left "
        "out (default: %(default)s; 0 keeps all)",
    )
    add(
        "--class-threshold",
        action="append",
        default=[],
        metavar="CLASS=P",
        help="another threshold for one class; may be repeated",
    )
    add("--max-per-image", type=int, default=0, metavar="N", help="best N proposals an image")
    add("--min-area", type=int, default=1, metavar="PX", help="smaller masks are left out")
    add(
        "--label-map",
        action="append",
        default=[],
        metavar="CLASS=LABEL",
        help="name of a model's class in the CVAT task; may be repeated",
    )
    add(
        "--z-order",
        choices=("score", "zero"),
        default="score",
        help="stack proposals by score, or all at 0 as the published pipeline does",
    )
    add("--model-name", default="", metavar="NAME", help="for labels with an attribute 'model'")
    add("--no-visuals", action="store_true", help="do not draw the proposals")
    add("--strict", action="store_true", help="exit status 1 when an image was left out")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with a run (the default)")
    again.add_argument("--overwrite", action="store_true", help="delete what is there first")
    add(
        "--opts",
        default=[],
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config overrides; must come last",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the pipeline; returns the exit status."""
    parser = get_parser()
    args = parser.parse_args(argv)
    setup_logger(name="fvcore")
    setup_logger(name="mask2former")
    try:
        summary = _run(args)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = f": --output_dir {args.output_dir}: make room, and start again to go on"
        print(f"run_annotation_pipeline.py: {error}{hint if full else ''}", file=sys.stderr)
        return 2
    except (*USER_ERRORS, ValueError) as error:
        print(f"run_annotation_pipeline.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrun_annotation_pipeline.py: interrupted; start it again to go on", file=sys.stderr)
        return 130
    _print(summary, Path(args.output_dir))
    left_out = summary.failed or summary.missing
    return 1 if args.strict and left_out else 0


def _run(args: argparse.Namespace) -> Summary:
    if args.batch_size < 1:
        raise ValueError("--batch-size must be at least 1")
    if not 0 <= args.confidence_threshold <= 1:
        raise ValueError(f"--confidence-threshold {args.confidence_threshold}: must be in [0, 1]")
    input_dir, output_dir = Path(args.input_dir), Path(args.output_dir)
    annotations = input_dir / "annotations.xml"
    if not annotations.is_file():
        raise FileNotFoundError(
            f"--input_dir {input_dir}: there is no annotations.xml; export the task from CVAT as "
            '"CVAT for images 1.1" and unpack it'
        )
    if output_dir.resolve() == input_dir.resolve():
        raise ValueError("--output_dir is --input_dir: the annotations would be overwritten")
    cfg = load_config(args.config_file, args.opts, need_data=False)
    if cfg.MODEL.WEIGHTS and "://" not in cfg.MODEL.WEIGHTS:
        check_weights_exist(cfg.MODEL.WEIGHTS)
    if args.max_per_image:
        cfg.TEST.DETECTIONS_PER_IMAGE = min(cfg.TEST.DETECTIONS_PER_IMAGE, args.max_per_image)
    proposals = ProposalOptions(
        task=args.task,
        threshold=args.confidence_threshold,
        class_thresholds=_pairs("--class-threshold", args.class_threshold, float),
        max_per_image=args.max_per_image,
        label_map=_pairs("--label-map", args.label_map, str),
        min_area=args.min_area,
    )
    # Predictions depend on these; how they are merged and drawn does not matter for checkpoints.
    settings = fingerprint(cfg, (proposals, args.batch_size))
    with only_run(output_dir):
        _prepare_output(output_dir, Store(output_dir / "checkpoints", settings), args)
        return _annotate(args, cfg, proposals, settings)


def _annotate(
    args: argparse.Namespace, cfg: CfgNode, proposals: ProposalOptions, settings: str
) -> Summary:
    input_dir, output_dir = Path(args.input_dir), Path(args.output_dir)
    annotations = input_dir / "annotations.xml"
    attributes = read_label_attributes(str(annotations))
    predictor = Predictor(cfg)
    predictor.require_trained()
    merging = MergeOptions(
        existing=args.existing,
        max_overlap=args.max_overlap,
        shape=args.shape,
        tolerance=args.simplify,
        least_part=args.min_part,
        z_order=args.z_order,
        score_attribute=declared_attributes(attributes, ("score", "confidence")),
        model_attribute=declared_attributes(attributes, ("model", "model_name")),
        model_name=args.model_name or Path(args.config_file).stem,
    )
    check_labels(predictor, proposals, attributes)
    pipeline = AnnotationPipeline(
        input_dir,
        output_dir,
        predictor,
        predictor.metadata,
        settings=settings,
        proposals=proposals,
        merging=merging,
        options=PipelineOptions(args.batch_size, args.num_workers, not args.no_visuals),
    )
    return pipeline.run()


def _pairs(flag: str, given: list[str], kind: type) -> dict:
    pairs = {}
    for text in given:
        name, _, value = text.rpartition("=")
        if not name or not value:
            raise ValueError(f"{flag} {text}: write it as CLASS=VALUE")
        try:
            pairs[name] = kind(value)
        except ValueError as error:
            raise ValueError(f"{flag} {text}: {error}") from error
    return pairs


def _prepare_output(output_dir: Path, store: Store, args: argparse.Namespace) -> None:
    """Decides about outputs that are there: go on, start anew, or refuse."""
    made = [output_dir / n for n in ("annotations.xml", "visuals", "predictions", "checkpoints")]
    if not any(path.exists() for path in made):
        return
    overwrite = args.overwrite
    if not (args.resume or args.overwrite) and sys.stdin.isatty():
        answer = input("Do you want to resume from existing outputs? [Y/n] ")
        overwrite = answer.strip().lower() in ("n", "no")
    if overwrite:
        store.set_aside(output_dir / "annotations.xml")
        for path in (*made, output_dir / "review.csv", output_dir / "summary.json"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return
    others = store.of_other_settings()
    if others:
        raise ValueError(
            f"--output_dir {output_dir}: {others} images were predicted with another model, config "
            "or thresholds; start anew with --overwrite, or choose another folder"
        )


def _print(summary: Summary, output_dir: Path) -> None:
    report = summary.to_json()
    added = ", ".join(f"{n} {label}" for label, n in report["proposals_added"].items()) or "none"
    overlapping = sum(report["proposals_overlapping_kept_shapes"].values())
    print(f"\n{summary.images} images; proposals: {added}")
    print(
        f"existing shapes: {summary.merged.kept} kept, {summary.merged.removed} removed; "
        f"{overlapping} proposals left out because they overlap a kept shape"
    )
    if summary.merged.skipped:
        print(f"{summary.merged.skipped} annotated images left alone")
    if "polygon_iou" in report:
        iou = report["polygon_iou"]
        print(
            f"polygons against masks: IoU {iou['mean']:.3f} on average, {iou['min']:.3f} at least"
        )
    for name in summary.missing[:20]:
        print(f"  missing: {name}")
    for name, why in list(summary.failed.items())[:20]:
        print(f"  left as it was: {name}: {why}")
    print(f"written: {output_dir / 'annotations.xml'}; look first at {output_dir / 'review.csv'}")


if __name__ == "__main__":
    sys.exit(main())
