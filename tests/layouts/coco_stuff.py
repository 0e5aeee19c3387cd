"""COCO-Stuff-10K v1.1 as downloaded: images of COCO 2014 and MATLAB annotation files."""

from pathlib import Path

import numpy as np
import scipy.io

from .files import save_picture, split_rows, table
from .scene import draw_scene


def write_coco_stuff_10k(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/coco/coco_stuff_10k``: images, ``annotations/*.mat`` and ``imageLists``.

    ``S`` of a .mat file is the label map: 0 unlabelled, else the class 1..182.
    """
    stuff, things = split_rows(table("coco_stuff_10k"))
    folder = Path(root) / "coco" / "coco_stuff_10k"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "imageLists").mkdir(exist_ok=True)
    stems: dict[str, list[str]] = {"train": [], "test": []}
    for number, split in enumerate(stems):
        for i in range(images):
            stem = f"COCO_train2014_{77 + 100 * number + i:012d}"
            stems[split].append(stem)
            scene = draw_scene([seed, 4, number, i], stuff=len(stuff), things=len(things))
            labels = np.zeros(scene.owner.shape, np.uint8)
            for k, shape in enumerate(scene.shapes):
                labels[scene.mask(k)] = (things if shape.isthing else stuff)[shape.label]["id"]
            save_picture(folder / "images" / f"{stem}.jpg", scene.image)
            scipy.io.savemat(
                folder / "annotations" / f"{stem}.mat",
                {
                    "S": labels,
                    "names": np.array([r["name"] for r in things + stuff], dtype=object),
                    "captions": np.array(["a tiny picture"], dtype=object),
                    "regionMapStuff": labels.astype(np.uint16),
                    "regionLabelsStuff": np.unique(labels).astype(np.uint16),
                },
                do_compression=True,
            )
        (folder / "imageLists" / f"{split}.txt").write_text("\n".join(stems[split]) + "\n")
    everything = sorted(stems["train"] + stems["test"])
    (folder / "imageLists" / "all.txt").write_text("\n".join(everything) + "\n")
