"""A small CVAT task whose "model" finds bright squares, for the tests of the pipeline."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from detectron2.structures import Instances
from mask2former.inference.annotation import AnnotationPipeline

LABELS = (
    "<labels><label><name>rail</name><attributes><attribute><name>Score</name></attribute>"
    "</attributes></label><label><name>post</name></label></labels>"
)
HUMAN = '<polygon label="rail" source="manual" occluded="0" points="2,2;12,2;12,12;2,12"/>'


def write_task(root: Path, names=None, shapes=None, size=(24, 30)) -> Path:
    """``images/`` and ``annotations.xml``; every image has two bright squares.

    ``shapes``: name -> XML of its shapes.
    """
    names = [f"{i}.png" for i in range(5)] if names is None else names
    height, width = size
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[2:12, 2:12] = 200  # a rail
    picture[14:22, 16:28] = 100  # a post
    body = []
    for i, name in enumerate(names):
        file = root / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
        inside = (shapes or {}).get(name, "")
        body.append(
            f'  <image id="{i}" name="{name}" width="{width}" height="{height}">{inside}</image>'
        )
    text = "\n".join(body)
    (root / "annotations.xml").write_text(
        f"<annotations>\n  <version>1.1</version>\n  <meta><task>{LABELS}</task></meta>\n"
        f"{text}\n</annotations>\n",
        encoding="utf-8",
    )
    return root


def bright_squares(images: list[np.ndarray]) -> list[dict]:
    """Two instances an image: rail with 0.9, post with 0.6; a post of 0.2 nobody wants."""
    outputs = []
    for image in images:
        gray = torch.from_numpy(image[..., 0].astype(np.float32))
        masks = torch.stack([gray == 100, gray == 200, gray == 0]).float()
        instances = Instances(tuple(gray.shape))
        instances.pred_masks = masks
        instances.scores = torch.tensor([0.6, 0.9, 0.2])
        instances.pred_classes = torch.tensor([1, 0, 1])
        outputs.append({"instances": instances})
    return outputs


METADATA = SimpleNamespace(
    get=lambda key, default=None: {
        "thing_classes": ["rail", "post"],
        "thing_colors": [[255, 0, 0], [0, 0, 255]],
    }.get(key, default)
)


def pipeline(task: Path, output: Path, predict=bright_squares, **options) -> AnnotationPipeline:
    """The pipeline on a task, with the model above."""
    options.setdefault("settings", "model 1")
    return AnnotationPipeline(task, output, predict, METADATA, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of all files."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
