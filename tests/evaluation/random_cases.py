"""Random ground truth and predictions that the tests of evaluators share."""

import numpy as np
import pycocotools.mask as mask_util
import torch
from numpy.random import Generator

from detectron2.structures import Boxes, Instances


def encode(mask: np.ndarray) -> dict:
    """COCO's run lengths, with text counts."""
    rle = mask_util.encode(np.asfortranarray(mask, np.uint8))
    rle["counts"] = rle["counts"].decode()
    return rle


def rectangle(rng: Generator, height: int, width: int) -> np.ndarray:
    """A mask of a rectangle with a frayed edge."""
    top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
    mask = np.zeros((height, width), bool)
    mask[top : top + rng.integers(4, height), left : left + rng.integers(4, width)] = True
    return mask & (rng.random(mask.shape) > 0.05)


def shifted(rng: Generator, mask: np.ndarray) -> np.ndarray:
    """A mask as a model might have found it: moved by some pixels."""
    return np.roll(mask, rng.integers(0, 5, 2), (0, 1))


def detection_case(
    seed: int, *, images: int = 25, classes: int = 5, lvis: bool = False
) -> tuple[dict, list[dict]]:
    """Ground truth with crowds and all area ranges, and detections with ties among the scores.

    Returns:
        content of a COCO (or LVIS) file, COCO results.
    """
    rng = np.random.default_rng(seed)
    categories = [{"id": 10 + 3 * c, "name": f"class {c}"} for c in range(classes)]
    content = {"images": [], "annotations": [], "categories": categories}
    results = []
    for i in range(images):
        height, width = (int(v) for v in rng.integers(40, 200, 2))
        image = {"id": 7 * i + 3, "height": height, "width": width}
        if lvis:
            image |= {"neg_category_ids": [10], "not_exhaustive_category_ids": [13] * (i % 2)}
        content["images"].append(image)
        for _ in range(rng.integers(0, 8)):
            mask = rectangle(rng, height, width)
            # The last class is never annotated: it has no AP.
            category = categories[rng.integers(classes - 1)]["id"]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "iscrowd": 0 if lvis else int(rng.random() < 0.15),
                    "area": float(mask.sum()),
                    "bbox": mask_util.toBbox(encode(mask)).tolist(),
                    "segmentation": encode(mask),
                }
            )
            for _ in range(rng.integers(0, 4)):
                found = shifted(rng, mask)
                category = (
                    category if rng.random() < 0.8 else categories[rng.integers(classes)]["id"]
                )
                results.append(
                    {
                        "image_id": image["id"],
                        "category_id": category,
                        "score": float(np.round(rng.random(), 2)),
                        "bbox": mask_util.toBbox(encode(found)).tolist(),
                        "segmentation": encode(found),
                    }
                )
    if lvis:
        for category, frequency in zip(categories, "rcfrc"):
            category["frequency"] = frequency
    return content, results


def as_model_outputs(
    content: dict, results: list[dict], contiguous: dict[int, int]
) -> list[tuple[dict, dict]]:
    """(input, output) pairs, one per image, as a model would give the results."""
    pairs = []
    for image in content["images"]:
        own = [r for r in results if r["image_id"] == image["id"]]
        masks = [mask_util.decode(r["segmentation"]) for r in own]
        size = (image["height"], image["width"])
        instances = Instances(size)
        stacked = np.stack(masks) if masks else np.zeros((0, *size), np.uint8)
        instances.pred_masks = torch.from_numpy(stacked).float()
        boxes = torch.tensor([r["bbox"] for r in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([r["score"] for r in own])
        instances.pred_classes = torch.tensor(
            [contiguous[r["category_id"]] for r in own], dtype=torch.int64
        )
        pairs.append(({"image_id": image["id"]}, {"instances": instances}))
    return pairs
