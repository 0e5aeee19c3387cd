"""ADEChallengeData2016 and ADE20K_2021_17_01 as downloaded."""

import pickle
from pathlib import Path

import numpy as np

from .files import save_json, save_picture, split_rows, table
from .scene import Scene, draw_scene

_SPLITS = {"training": "train", "validation": "val"}


def write_ade20k(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/ADEChallengeData2016`` with the instance annotations unpacked into it.

    ``annotations`` hold 0 for other and 1..150; ``annotations_instance`` the instance class
    1..100 in red and the number of the instance, from 1, in green.
    """
    rows = table("ade20k_150")
    stuff, things = split_rows(rows)
    instance_class = {row["id"]: i + 1 for i, row in enumerate(table("ade20k_instance"))}
    folder = Path(root) / "ADEChallengeData2016"
    scenes = []
    for number, (split, short) in enumerate(_SPLITS.items()):
        for i in range(images):
            stem = f"ADE_{short}_{i + 1:08d}"
            scene = draw_scene(
                [seed, 2, number, i],
                stuff=len(stuff),
                things=len(things),
                objects=0 if i == 2 else 6,
            )
            labels = np.zeros(scene.owner.shape, np.uint8)
            instances = np.zeros((*scene.owner.shape, 3), np.uint8)
            count = 0
            for k, shape in enumerate(scene.shapes):
                row = (things if shape.isthing else stuff)[shape.label]
                labels[scene.mask(k)] = row["id"] + 1
                if shape.isthing:
                    count += 1
                    instances[scene.mask(k)] = (instance_class[row["id"]], count, 0)
            save_picture(folder / "images" / split / f"{stem}.jpg", scene.image)
            save_picture(folder / "annotations" / split / f"{stem}.png", labels)
            save_picture(folder / "annotations_instance" / split / f"{stem}.png", instances)
            scenes.append(f"{stem} street")
    (folder / "sceneCategories.txt").write_text("\n".join(scenes) + "\n")
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    lines += [f"{r['id'] + 1}\t0.01\t9\t1\t{int(not r['isthing'])}\t{r['name']}" for r in rows]
    (folder / "objectInfo150.txt").write_text("\n".join(lines) + "\n")


def write_ade20k_full(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/ADE20K_2021_17_01``: pictures by scene, ``_seg.png`` and the index.

    In ``_seg.png`` the class is ``R // 10 * 256 + G``, from 1, a number of ``objectnames``; blue
    tells instances apart. Most of the 3688 classes are not among the 847 that are trained.
    """
    root = Path(root)
    names = _object_names()
    # Classes of the 847, then some that are outside.
    trained = [row["id"] for row in table("ade20k_full")]
    outside = sorted(set(range(1, len(names) + 1)) - set(trained))[::500]
    things = trained[7:] + outside
    index: dict[str, list] = {"filename": [], "folder": [], "scene": []}
    presence = []
    for number, (split, short) in enumerate(_SPLITS.items()):
        for i in range(images):
            place = "street" if i % 2 == 0 else "bedroom"
            kind = "urban" if i % 2 == 0 else "home_or_hotel"
            relative = f"ADE20K_2021_17_01/images/ADE/{split}/{kind}/{place}"
            stem = f"ADE_{short}_{i + 1:08d}"
            scene = draw_scene([seed, 3, number, i], stuff=7, things=len(things))
            classes, seg = _seg(scene, trained[:7], things)
            save_picture(root / relative / f"{stem}.jpg", scene.image)
            save_picture(root / relative / f"{stem}_seg.png", seg)
            save_json(
                root / relative / f"{stem}.json",
                {"annotation": {"filename": f"{stem}.jpg", "folder": relative, "object": []}},
            )
            index["filename"].append(f"{stem}.jpg")
            index["folder"].append(relative)
            index["scene"].append(f"/{place}")
            presence.append(np.bincount(classes, minlength=len(names) + 1)[1:])
    index["objectnames"] = names
    index["objectPresence"] = np.stack(presence, 1)
    index["description"] = {"folder": "List of all the folder names"}
    with open(root / "ADE20K_2021_17_01" / "index_ade20k.pkl", "wb") as f:
        pickle.dump(index, f)


def _object_names() -> list[str]:
    names = [f"other object {i}" for i in range(1, 3689)]
    for row in table("ade20k_full"):
        names[row["id"] - 1] = row["name"]
    return names


def _seg(scene: Scene, stuff: list[int], things: list[int]) -> tuple[list[int], np.ndarray]:
    """Classes of the shapes and the RGB map; unlabelled pixels are black."""
    seg = np.zeros((*scene.owner.shape, 3), np.uint8)
    classes = []
    for k, shape in enumerate(scene.shapes):
        value = (things if shape.isthing else stuff)[shape.label]
        classes.append(value)
        seg[scene.mask(k)] = (value // 256 * 10, value % 256, k + 1)
    return classes, seg
