"""Cityscapes as downloaded: leftImg8bit and gtFine, with polygons and three kinds of PNG.

The PNGs are made from the polygons by cityscapesscripts itself, as the published ones were. The
label-id and panoptic files that the scripts make are not part of the download.
"""

from pathlib import Path
from typing import Any

import numpy as np
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import labels as LABELS
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage

from .files import save_json, save_picture
from .scene import Scene, draw_scene

# Frames that Cityscapes has.
FRAMES = {
    "train": ("aachen", ["000000_000019", "000001_000019", "000002_000019", "000003_000019"]),
    "val": ("frankfurt", ["000000_000294", "000000_000576", "000000_001016", "000000_001236"]),
    "test": ("berlin", ["000000_000019"]),
}
# Height and width with the ratio of the real 1024 x 2048.
SIZE = (128, 256)
_STUFF = [x.name for x in LABELS if x.trainId not in (255, -1) and not x.hasInstances]
_THINGS = [x.name for x in LABELS if x.hasInstances and not x.ignoreInEval]


def write_cityscapes(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/cityscapes`` with train and val, and one frame of test (not annotated).

    The first frame of a split has a group ("cargroup"), the third no things.

    Args:
        images: of train and of val, at most 4.
    """
    folder = Path(root) / "cityscapes"
    for number, split in enumerate(FRAMES):
        for i in range(images if split != "test" else 1):
            city, frames = FRAMES[split]
            base = f"{city}_{frames[i]}"
            scene = draw_scene(
                [seed, 5, number, i],
                stuff=len(_STUFF),
                things=len(_THINGS),
                size=SIZE,
                objects=0 if i == 2 else 8,
                crowd=i == 0,
            )
            objects = ([] if split == "test" else _objects(scene)) + _frame_objects()
            image_file = folder / "leftImg8bit" / split / city / f"{base}_leftImg8bit.png"
            save_picture(image_file, scene.image)
            _write_annotation(folder / "gtFine" / split / city / f"{base}_gtFine", objects)


def _objects(scene: Scene) -> list[dict[str, Any]]:
    out = []
    for shape in scene.shapes:
        name = (_THINGS if shape.isthing else _STUFF)[shape.label]
        if shape.crowd:
            name = "cargroup"
        out.append({"label": name, "polygon": shape.polygon.tolist()})
    return out


def _frame_objects() -> list[dict[str, Any]]:
    """What real files end with: the frame of the picture, outside all classes."""
    height, width = SIZE
    edge = [[0, 0], [width - 1, 0], [width - 1, 1], [0, 1]]
    bonnet = [[0, height - 1], [width - 1, height - 1], [width - 1, height - 4], [0, height - 4]]
    return [
        {"label": "ego vehicle", "polygon": bonnet},
        {"label": "out of roi", "polygon": edge},
    ]


def _write_annotation(stem: Path, objects: list[dict[str, Any]]) -> None:
    content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": objects}
    file = stem.with_name(stem.name + "_polygons.json")
    save_json(file, content)
    annotation = Annotation()
    annotation.fromJsonFile(str(file))
    pictures = {
        "labelIds": np.asarray(createLabelImage(annotation, "ids")).astype(np.uint8),
        # 16 bit: label id, or label id * 1000 + number of the instance.
        "instanceIds": np.asarray(createInstanceImage(annotation, "ids")).astype(np.uint16),
        "color": np.asarray(createLabelImage(annotation, "color")),
    }
    for kind, picture in pictures.items():
        save_picture(stem.with_name(f"{stem.name}_{kind}.png"), picture)
