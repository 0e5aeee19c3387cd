#!/usr/bin/env python
"""Draws a small CVAT task to try docs/custom-dataset.md with, before you use images of your own.

    python tools/example_task.py fence --images 10
    python tools/example_task.py fence2 --images 20 --seed 1 --unlabelled

Barriers of two rails, a toeboard and posts, as polygons in "CVAT for images 1.1".
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

import cv2
import numpy as np

from mask2former.data.cvat.document import NewShape, edit_image, split_document
from mask2former.data.cvat.writing import new_document

LABELS = ["rail_top", "rail_mid", "toeboard", "vertical_post"]
WIDTH, HEIGHT = 320, 240
Shape = tuple[str, np.ndarray]  # label, outline [N, 2] in x, y


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Draw a CVAT task: images/ and annotations.xml.",
        epilog="With --unlabelled the outlines go to truth.xml, and annotations.xml has none: a "
        "task for a model to pre-label, and what a patient person would make of it.",
    )
    parser.add_argument("output", metavar="DIR", help="is created")
    parser.add_argument("--images", type=int, default=10, metavar="N", help="(default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default: 0)")
    parser.add_argument("--unlabelled", action="store_true", help="see below")
    return parser


def draw_barrier(seed: list[int]) -> tuple[np.ndarray, list[Shape]]:
    """One picture, uint8 BGR [240, 320, 3], and its outlines."""
    rng = np.random.default_rng(seed)
    image = _background(rng)
    slope = rng.uniform(-0.12, 0.12)
    top = rng.uniform(45, 85)
    spacing = rng.uniform(38, 52)
    metal = rng.integers(90, 210, 3)
    shapes: list[Shape] = []
    for number, label in enumerate(LABELS[:3]):
        y, thickness = top + number * spacing, 9 if number < 2 else 20
        thickness += rng.uniform(-1, 3)
        x = np.array([0.0, WIDTH])
        upper = y + slope * (x - WIDTH / 2)
        outline = np.array(
            [(0, upper[0]), (WIDTH, upper[1]), (WIDTH, upper[1] + thickness)]
            + [(0, upper[0] + thickness)]
        )
        color = metal if number < 2 else rng.integers((20, 90, 150), (70, 150, 220))
        shapes.append((label, outline))
        _fill(image, outline, color, rng)
    for x in np.arange(rng.uniform(20, 70), WIDTH - 15, rng.uniform(90, 130)):
        width = rng.uniform(9, 13)
        y = top - 12 + slope * (x - WIDTH / 2)
        bottom = min(y + 2 * spacing + 60, HEIGHT)
        outline = np.array([(x, y), (x + width, y), (x + width, bottom), (x, bottom)])
        shapes.append((LABELS[3], outline))
        _fill(image, outline, metal * 0.75, rng)
    noise = rng.normal(0, 5, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8), shapes


def _background(rng: np.random.Generator) -> np.ndarray:
    """Coarse blotches between two colours of a building site."""
    coarse = rng.uniform(0, 1, (6, 8)).astype(np.float32)
    share = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    first, second = rng.integers((90, 110, 120), (200, 215, 225), (2, 3))
    return first * share + second * (1 - share)


def _fill(image: np.ndarray, outline: np.ndarray, color: np.ndarray, rng) -> None:
    points = np.round(outline * 16).astype(np.int32)  # 4 bits of fraction
    cv2.fillPoly(image, [points], [float(c) for c in color], cv2.LINE_AA, 4)
    edge = [float(c) * rng.uniform(0.4, 0.7) for c in color]
    cv2.polylines(image, [points], True, edge, 1, cv2.LINE_AA, 4)


def write_task(output: Path, images: int, seed: int, unlabelled: bool) -> None:
    """Writes ``images/`` and ``annotations.xml``; unlabelled: and ``truth.xml``."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    drawn = []
    for number in range(images):
        image, shapes = draw_barrier([seed, number])
        name = f"site{seed}_{number:03d}.jpg"
        cv2.imwrite(str(output / "images" / name), image)
        drawn.append((name, shapes))
    empty = new_document([(name, WIDTH, HEIGHT) for name, _ in drawn], LABELS)
    annotations = output / "annotations.xml"
    annotations.write_bytes(empty)
    remaining = iter(drawn)
    labelled = b"".join(
        edit_image(piece.data, add=[_element(*shape) for shape in next(remaining)[1]])
        if piece.is_image
        else piece.data
        for piece in split_document(str(annotations))
    )
    (output / "truth.xml" if unlabelled else annotations).write_bytes(labelled)


def _element(label: str, outline: np.ndarray) -> NewShape:
    inside = outline.clip((0, 0), (WIDTH, HEIGHT))
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in inside)
    attributes = {"label": label, "source": "manual", "occluded": "0", "points": points}
    return NewShape("polygon", {**attributes, "z_order": "0"}, {})


def main(argv: list[str] | None = None) -> int:
    """Writes the task; returns the exit status."""
    args = get_parser().parse_args(argv)
    output = Path(args.output)
    if (output / "annotations.xml").exists():
        print(f"example_task.py: {output} has an annotations.xml already", file=sys.stderr)
        return 2
    write_task(output, args.images, args.seed, args.unlabelled)
    print(f"{args.images} images and annotations.xml in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
