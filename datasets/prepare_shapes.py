#!/usr/bin/env python3
"""Makes the synthetic set "shapes" under $DETECTRON2_DATASETS/shapes (default ./datasets/shapes).

The set has six thing classes (circle, square, triangle, star, ring, cross) on six stuff classes
(sky, grass, water, sand, brick, wood), with occlusion, crowd and void regions, in COCO's panoptic,
instances and semantic format. Its registered names: shapes_panoptic_{train,val} (also with the
suffix _with_sem_seg), shapes_instance_{train,val} and shapes_sem_seg_{train,val}.
The same arguments always make the same set; a second run with them returns at once.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from mask2former.data.shapes import SceneSpec, ShapesSpec, prepare_shapes

EXAMPLES = """examples:
  python datasets/prepare_shapes.py                                  the default set, 1200 + 200
  python datasets/prepare_shapes.py --train 20 --val 8 --output /tmp/tiny/shapes
  python datasets/prepare_shapes.py --min-side 320 --max-side 512    larger pictures
"""


def default_output() -> Path:
    """$DETECTRON2_DATASETS/shapes, or ./datasets/shapes where the variable is not set."""
    return Path(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))) / "shapes"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line (``sys.argv`` by default)."""
    spec, scene = ShapesSpec(), SceneSpec()
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(flag: str, default: object, text: str) -> None:
        parser.add_argument(flag, type=type(default), default=default, help=f"{text} ({default})")

    parser.add_argument(
        "--output", type=Path, help="target folder ($DETECTRON2_DATASETS/shapes)", metavar="DIR"
    )
    add("--train", spec.train, "number of training pictures")
    add("--val", spec.val, "number of validation pictures; they share no random stream with train")
    add("--seed", spec.seed, "another seed, another set")
    add("--min-side", scene.min_side, "smallest picture side in pixels")
    add("--max-side", scene.max_side, "largest picture side in pixels")
    add("--max-things", scene.max_things, "most objects in a picture")
    add("--min-radius", scene.min_radius, "smallest object radius as share of the shorter side")
    add("--max-radius", scene.max_radius, "largest object radius as share of the shorter side")
    add("--crowd-share", scene.crowd_share, "share of pictures with a crowd region")
    add("--void-share", scene.void_share, "share of pictures with an unlabelled region")
    add("--workers", os.cpu_count() or 1, "processes; any number makes the same pictures")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Makes the set and says where it is; returns the exit status."""
    args = parse_arguments(arguments)
    output = args.output or default_output()
    scene = SceneSpec(
        min_side=args.min_side,
        max_side=args.max_side,
        max_things=args.max_things,
        min_radius=args.min_radius,
        max_radius=args.max_radius,
        crowd_share=args.crowd_share,
        void_share=args.void_share,
    )
    spec = ShapesSpec(train=args.train, val=args.val, seed=args.seed, scene=scene)
    start = time.perf_counter()
    try:
        written = prepare_shapes(output, spec, workers=args.workers, progress=not args.quiet)
    except (ValueError, OSError) as error:
        print(f"prepare_shapes: {error}", file=sys.stderr)
        return 1
    if written:
        seconds = time.perf_counter() - start
        print(f"Wrote {args.train} + {args.val} pictures to {output} in {seconds:.1f} s.")
    else:
        print(f"{output} is there already with these arguments; nothing to do.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
