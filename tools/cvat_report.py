#!/usr/bin/env python
"""What people did to a model's proposals: accepted, changed, deleted, added, per class.

    python tools/cvat_report.py proposals/annotations.xml corrected/annotations.xml

The first file is what predict/run_annotation_pipeline.py wrote, the second the task's export after
people corrected it (both "CVAT for images 1.1").
"""

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

from mask2former.data.cvat import CvatError
from mask2former.inference.annotation.correction import OUTCOMES, CorrectionReport, compare
from mask2former.inference.annotation.merging import AUTOMATIC


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Compare proposals with what people made of them.",
        epilog="accepted: same label, IoU >= --unchanged; reshaped: same label, IoU >= --same; "
        "relabelled: another label; deleted: no shape overlaps it enough; added: people drew it. "
        "The share accepted tells how much work the model saves; classes with many deletions "
        "want a higher --class-threshold, those with many additions more training images.",
    )
    parser.add_argument("before", metavar="BEFORE.xml", help="with the proposals")
    parser.add_argument("after", metavar="AFTER.xml", help="exported after the correction")
    parser.add_argument(
        "--source",
        action="append",
        metavar="S",
        help=f"source of proposals in BEFORE; may be repeated (default: {', '.join(AUTOMATIC)})",
    )
    parser.add_argument(
        "--same", type=float, default=0.5, metavar="IOU", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--unchanged", type=float, default=0.98, metavar="IOU", help="(default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser


def table(report: CorrectionReport) -> str:
    """The report as text, one row a label."""
    rows = []
    for name, label in [*sorted(report.labels.items()), ("all", report.total)]:
        figures = label.to_json()
        share = label.counts["accepted"] / label.proposals if label.proposals else None
        rows.append(
            [
                name,
                label.proposals,
                *(label.counts[o] for o in OUTCOMES),
                "" if share is None else f"{share:.0%}",
                "" if figures["iou"] is None else f"{figures['iou']:.3f}",
            ]
        )
    headers = ["label", "proposals", *OUTCOMES, "share accepted", "IoU"]
    return tabulate(rows, headers=headers, tablefmt="github")


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    args = get_parser().parse_args(argv)
    try:
        report = compare(
            args.before,
            args.after,
            sources=[s.lower() for s in args.source or AUTOMATIC],
            same=args.same,
            unchanged=args.unchanged,
        )
    except (CvatError, OSError, ValueError) as error:
        print(f"cvat_report.py: {error}", file=sys.stderr)
        return 2
    print(f"{report.images} images\n\n{table(report)}")
    for which, names in (("before", report.only_before), ("after", report.only_after)):
        if names:
            print(f"\n{len(names)} images are only in the file {which}, e.g. {names[0]}")
    if args.json:
        Path(args.json).write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
