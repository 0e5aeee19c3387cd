"""A small set for every evaluator: its ground truth on disk, and what a model might predict."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from evaluation.random_cases import as_model_outputs, detection_case, rectangle, shifted
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from mask2former import evaluation

Pairs = list[tuple[dict, dict]]
IMAGES = 5
SIZE = (64, 96)
CLASSES = 4  # of the semantic and panoptic set; the first two are things


def run(evaluator, pairs: Pairs) -> dict:
    """The results of an evaluator that sees records and outputs one by one."""
    evaluator.reset()
    for record, output in pairs:
        evaluator.process([record], [output])
    return evaluator.evaluate()


def instances_set(folder: Path, name: str, *, lvis: bool = False, gaps: bool = False) -> Pairs:
    """COCO or LVIS annotations; with ``gaps``, contiguous ids as in a panoptic set."""
    content, results = detection_case(0, images=IMAGES, lvis=lvis)
    path = folder / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(content))
    ids = {c["id"]: 3 * i if gaps else i for i, c in enumerate(content["categories"])}
    MetadataCatalog.get(name).set(
        json_file=str(path),
        thing_classes=[c["name"] for c in content["categories"]],
        thing_dataset_id_to_contiguous_id=ids,
    )
    return as_model_outputs(content, results, ids)


def label_maps(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Ground truth (255: ignored) and predictions, uint8 ``[H, W]``."""
    rng = np.random.default_rng(seed)
    truth, predicted = [], []
    for _ in range(IMAGES):
        labels = np.zeros(SIZE, np.uint8)
        found = np.zeros(SIZE, np.uint8)
        for label in (1, 2, 3, 1):
            mask = rectangle(rng, *SIZE)
            labels[mask], found[shifted(rng, mask)] = label, label
        labels[:4] = 255
        truth.append(labels)
        predicted.append(found)
    return truth, predicted


def semantic_set(folder: Path, name: str) -> Pairs:
    truth, predicted = label_maps(1)
    records, pairs = [], []
    for i, (labels, found) in enumerate(zip(truth, predicted)):
        path = folder / f"{name}_{i}.png"
        if not path.exists():
            Image.fromarray(labels).save(path)
        records.append({"file_name": f"/images/{i}.jpg", "sem_seg_file_name": str(path)})
        scores = torch.nn.functional.one_hot(torch.from_numpy(found).long(), CLASSES)
        output = {"sem_seg": scores.permute(2, 0, 1).float()}
        pairs.append(({"file_name": f"/images/{i}.jpg", "image_id": i}, output))
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, lambda: records)
    names = [f"class {i}" for i in range(CLASSES)]
    MetadataCatalog.get(name).set(stuff_classes=names, ignore_label=255)
    return pairs


def panoptic_set(folder: Path, name: str) -> Pairs:
    truth, predicted = label_maps(2)
    annotations, pairs = [], []
    for i, (labels, found) in enumerate(zip(truth, predicted)):
        ids = np.where(labels == 255, 0, labels.astype(np.uint32) + 1)
        path = folder / f"{name}_{i}.png"
        if not path.exists():
            Image.fromarray(np.stack([ids, ids * 0, ids * 0], -1).astype(np.uint8)).save(path)
        segments = [
            {"id": k, "category_id": 20 + k, "area": int((ids == k).sum()), "iscrowd": 0}
            for k in np.unique(ids[ids > 0]).tolist()
        ]
        annotations.append({"image_id": i, "file_name": path.name, "segments_info": segments})
        own = np.unique(found).tolist()
        output = [{"id": k + 1, "isthing": k < 2, "category_id": k} for k in own]
        panoptic = torch.from_numpy(found.astype(np.int32) + 1)
        record = {"file_name": f"/images/{i}.jpg", "image_id": i}
        pairs.append((record, {"panoptic_seg": (panoptic, output)}))
    categories = [
        {"id": 21 + k, "name": f"class {k}", "isthing": int(k < 2)} for k in range(CLASSES)
    ]
    path = folder / f"{name}.json"
    if not path.exists():
        images = [{"id": i} for i in range(IMAGES)]
        path.write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    MetadataCatalog.get(name).set(
        panoptic_json=str(path),
        panoptic_root=str(folder),
        thing_dataset_id_to_contiguous_id={21: 0, 22: 1},
        stuff_dataset_id_to_contiguous_id={23: 2, 24: 3},
    )
    return pairs


def cityscapes_set(folder: Path, name: str) -> Pairs:
    """All labels and groups occur; predictions of instances and of semantics."""
    rng = np.random.default_rng(3)
    known = sorted((x for x in cityscapes_labels if x.id >= 0), key=lambda label: label.id)
    things = [x for x in known if x.hasInstances and not x.ignoreInEval]
    train_ids = np.array([x.trainId if x.trainId < 19 else 0 for x in known])
    city = folder / name / "aachen"
    city.mkdir(parents=True, exist_ok=True)
    pairs = []
    for i in range(IMAGES):
        labels, instances = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint16)
        masks, classes, scores = [], [], []
        for k in range(30):
            label = things[k % 8] if k % 2 else known[rng.integers(len(known))]
            mask = rectangle(rng, SIZE[0] // 2, SIZE[1] // 3)
            mask = np.roll(np.pad(mask, ((0, 32), (0, 64))), rng.integers(0, 64, 2), (0, 1))
            single = label.hasInstances and rng.random() < 0.8
            labels[mask], instances[mask] = label.id, 1000 * label.id + k if single else label.id
            if label in things and rng.random() < 0.8:
                masks.append(mask if rng.random() < 0.5 else shifted(rng, mask))
                classes.append(things.index(label) if rng.random() < 0.8 else 0)
                scores.append(float(np.round(rng.random(), 1)))
        stem = city / f"aachen_{i:06}_000019_gtFine"
        if not Path(f"{stem}_labelIds.png").exists():
            Image.fromarray(labels).save(f"{stem}_labelIds.png")
            Image.fromarray(instances).save(f"{stem}_instanceIds.png")
        semantic = torch.from_numpy(rng.random((19, *SIZE), np.float32))
        own = torch.from_numpy(train_ids[labels])[None]
        semantic.scatter_add_(0, own, torch.full((1, *SIZE), 0.9))
        found = Instances(SIZE, pred_masks=torch.from_numpy(np.stack(masks)).float())
        found.pred_boxes = Boxes(torch.zeros(len(masks), 4))
        found.scores, found.pred_classes = torch.tensor(scores), torch.tensor(classes)
        record = {"file_name": f"/left/aachen_{i:06}_000019_leftImg8bit.png", "image_id": i}
        pairs.append((record, {"instances": found, "sem_seg": semantic}))
    MetadataCatalog.get(name).set(
        gt_dir=str(folder / name), thing_classes=[label.name for label in things]
    )
    return pairs


# kind -> (predictions of a set, evaluator of a set)
CASES: dict[str, tuple[Callable, Callable]] = {
    "coco": (instances_set, lambda n, out: evaluation.COCOEvaluator(n, output_dir=out)),
    "instance": (
        lambda folder, n: instances_set(folder, n, gaps=True),
        lambda n, out: evaluation.InstanceSegEvaluator(n, output_dir=out),
    ),
    "lvis": (
        lambda folder, n: instances_set(folder, n, lvis=True),
        lambda n, out: evaluation.LVISEvaluator(n, output_dir=out),
    ),
    "sem_seg": (semantic_set, lambda n, out: evaluation.SemSegEvaluator(n, output_dir=out)),
    "panoptic": (
        panoptic_set,
        lambda n, out: evaluation.COCOPanopticEvaluator(n, out, details=True),
    ),
    "cityscapes_sem_seg": (
        cityscapes_set,
        lambda n, out: evaluation.CityscapesSemSegEvaluator(n),
    ),
    "cityscapes_instance": (
        cityscapes_set,
        lambda n, out: evaluation.CityscapesInstanceEvaluator(n),
    ),
}


def score(kind: str, folder: Path, rank: int = 0, processes: int = 1) -> dict | None:
    """Results of one evaluator for this process' share of the images, files below ``folder``."""
    make_set, make_evaluator = CASES[kind]
    pairs = make_set(folder, f"{kind}_{folder.name}")
    out = folder / f"{kind}_by_{processes}"
    evaluator = make_evaluator(f"{kind}_{folder.name}", str(out))
    evaluator.reset()
    # Consecutive shares, as detectron2's InferenceSampler deals them out.
    share = -(-len(pairs) // processes)
    for record, output in pairs[rank * share : (rank + 1) * share]:
        evaluator.process([record], [output])
    return evaluator.evaluate()
