#!/usr/bin/env python
"""PQ of a semantic model: every class of an image counts as one stuff segment.

    python tools/evaluate_pq_for_semantic_segmentation.py --dataset-name ade20k_sem_seg_val \\
        --json-file output/inference/sem_seg_predictions.json

Reads what a semantic evaluation has written, and the label images of the data set. Works on all
cores and needs no GPU. mIoU is a fraction, over the classes that were annotated or predicted, and
may therefore differ a little from the evaluation's, which leaves out those never annotated.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.evaluation.errors import EvaluationError
from mask2former.evaluation.semantic_pq import SemanticQuality, semantic_panoptic_quality

PUBLISHED = ("ade20k_sem_seg_val", "coco_2017_test_stuff_10k_sem_seg", "ade20k_full_sem_seg_val")


def get_parser() -> argparse.ArgumentParser:
    """The published flags, with any registered semantic set, and how many processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json-file", default="", help="sem_seg_predictions.json (required)")
    parser.add_argument(
        "--dataset-name",
        default=PUBLISHED[0],
        help=f"{', '.join(PUBLISHED)} or any other set with label images (%(default)s)",
    )
    parser.add_argument("--num-processes", type=int, metavar="N", help="processes (all cores)")
    return parser


def main() -> int:
    """Evaluates and prints the published table; the exit status."""
    args = get_parser().parse_args()
    try:
        predictions = read_predictions(args.json_file)
        quality = evaluate(args.dataset_name, predictions, args.num_processes)
    except (EvaluationError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(quality))
    return 0


def read_predictions(path: str) -> list[dict]:
    """The content of ``sem_seg_predictions.json``.

    Raises:
        EvaluationError: the file is missing or something else.
    """
    if not path:
        raise EvaluationError("--json-file is missing (see --help)")
    try:
        with open(path) as file:
            content = json.load(file)
    except OSError as error:
        raise EvaluationError(f"--json-file {path}: {error.strerror}") from error
    except ValueError as error:
        raise EvaluationError(f"--json-file {path} is no JSON file: {error}") from error
    needed = {"file_name", "category_id", "segmentation"}
    if not isinstance(content, list) or not all(
        isinstance(entry, dict) and needed <= entry.keys() for entry in content
    ):
        raise EvaluationError(
            f"--json-file {path} is not the sem_seg_predictions.json of a semantic evaluation"
        )
    return content


def evaluate(dataset_name: str, predictions: list[dict], processes: int | None) -> SemanticQuality:
    """Compares the predictions with a registered data set."""
    import mask2former  # noqa: F401 - registers the data sets
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if dataset_name not in DatasetCatalog.list():
        raise EvaluationError(
            f"--dataset-name: there is no data set {dataset_name!r}; tools/datasets.py list names "
            "all"
        )
    records = DatasetCatalog.get(dataset_name)
    ground_truth = {
        r["file_name"]: r["sem_seg_file_name"] for r in records if "sem_seg_file_name" in r
    }
    metadata = MetadataCatalog.get(dataset_name)
    if not ground_truth:
        raise EvaluationError(f"--dataset-name: {dataset_name} has no label images")
    quality = semantic_panoptic_quality(
        predictions,
        ground_truth,
        metadata.stuff_classes,
        ignore_label=metadata.get("ignore_label", 255),
        contiguous_id=metadata.get("stuff_dataset_id_to_contiguous_id"),
        processes=processes,
        progress=True,
    )
    if quality.images < len(ground_truth):
        print(
            f"{quality.images} of {len(ground_truth)} images of {dataset_name} were predicted; the "
            f"others do not count (folder: {os.environ.get('DETECTRON2_DATASETS', 'datasets')})"
        )
    return quality


def table(quality: SemanticQuality) -> str:
    """The published lines."""
    header = "{:10s}| {:>5s}  {:>5s}  {:>5s} {:>5s}".format("", "PQ", "SQ", "RQ", "N")
    lines = [header, "-" * (10 + 7 * 4)]
    for split in ("All", "Stuff"):
        values = [100 * quality.pq[split][key] for key in ("pq", "sq", "rq")]
        count = quality.pq[split]["n"]
        lines.append("{:10s}| {:5.1f}  {:5.1f}  {:5.1f} {:5d}".format(split, *values, count))
    return "\n".join([*lines, f"mIoU: {quality.miou}"])


if __name__ == "__main__":
    sys.exit(main())
