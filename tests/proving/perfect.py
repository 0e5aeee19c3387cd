"""Predictions made from the ground truth, through the evaluators that a data set gets.

To be run where the data set's files are registered (see process.py).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# What is predicted for one image; a corruption changes it in place.
#   labels: int [H, W], classes, -1 where nothing is known
#   segments: list of {mask bool [H, W], category_id contiguous, isthing}
#   instances: list of {mask bool [H, W], category_id contiguous, score}
Prediction = dict[str, Any]
Corruption = Callable[[list[Prediction]], None]


def scores(dataset: str, corrupt: Corruption | None = None) -> dict[str, dict]:
    """Results of all evaluators of ``dataset`` on perfect or corrupted predictions.

    Args:
        corrupt: gets the predictions of all images.
    """
    import tempfile

    from detectron2.data import DatasetCatalog
    from mask2former.engine.setup import load_config
    from mask2former.evaluation import build_evaluator

    predictions = perfect_predictions(dataset)
    if corrupt is not None:
        corrupt(predictions)
    with tempfile.TemporaryDirectory() as folder:
        switches = ("SEMANTIC_ON", "INSTANCE_ON", "PANOPTIC_ON")
        options = [x for s in switches for x in (f"MODEL.MASK_FORMER.TEST.{s}", "True")]
        cfg = load_config("", [*options, "OUTPUT_DIR", folder])
        evaluator = build_evaluator(cfg, dataset)
        evaluator.reset()
        for record, prediction in zip(DatasetCatalog.get(dataset), predictions, strict=True):
            keys = ("file_name", "image_id", "height", "width")
            inputs = {k: record[k] for k in keys if k in record}
            evaluator.process([inputs], [_model_output(prediction, dataset)])
        return {task: dict(values) for task, values in evaluator.evaluate().items()}


def perfect_predictions(dataset: str) -> list[Prediction]:
    """What a model without error would say of every image, in the order of the records."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    metadata = MetadataCatalog.get(dataset)
    return [_perfect(record, metadata) for record in DatasetCatalog.get(dataset)]


def _perfect(record: dict[str, Any], metadata: Any) -> Prediction:
    from PIL import Image

    out: Prediction = {"labels": None, "segments": None, "instances": []}
    if "sem_seg_file_name" in record:
        labels = np.asarray(Image.open(record["sem_seg_file_name"])).astype(np.int64)
        out["labels"] = np.where(labels == metadata.ignore_label, -1, labels)
    things = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    if "pan_seg_file_name" in record:
        rgb = np.asarray(Image.open(record["pan_seg_file_name"]).convert("RGB")).astype(np.int64)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        out["segments"] = [
            {
                "mask": ids == s["id"],
                "category_id": s["category_id"],
                "isthing": s["category_id"] in things.values(),
            }
            for s in record["segments_info"]
            if not s.get("iscrowd")
        ]
    if metadata.evaluator_type.startswith("cityscapes"):
        out["instances"] = _cityscapes_instances(record["file_name"], metadata)
    elif metadata.get("json_file"):
        out["instances"] = _json_instances(metadata.json_file, record, things)
    return out


def _json_instances(json_file: str, record: dict, things: dict[int, int]) -> list[dict]:
    """Masks of an instances json, drawn by pycocotools."""
    import pycocotools.mask as mask_util

    out = []
    for entry in json.loads(Path(json_file).read_text())["annotations"]:
        if entry["image_id"] != record["image_id"] or entry.get("iscrowd"):
            continue
        outline = entry["segmentation"]
        if not isinstance(outline, dict) or isinstance(outline["counts"], list):
            outline = mask_util.frPyObjects(outline, *_size(record))
        rle = mask_util.merge(outline) if isinstance(outline, list) else outline
        category = things.get(entry["category_id"], entry["category_id"] - 1)
        mask = mask_util.decode(rle).astype(bool)
        out.append({"mask": mask, "category_id": category, "score": 0.9})
    return out


def _cityscapes_instances(image_file: str, metadata: Any) -> list[dict]:
    from cityscapesscripts.helpers.labels import id2label
    from PIL import Image

    file = image_file.replace("/leftImg8bit/", "/gtFine/")
    file = file.replace("_leftImg8bit", "_gtFine_instanceIds")
    ids = np.asarray(Image.open(file))
    names = metadata.thing_classes
    return [
        {"mask": ids == i, "category_id": names.index(id2label[i // 1000].name), "score": 0.9}
        for i in np.unique(ids).tolist()
        if i >= 1000 and id2label[i // 1000].name in names
    ]


def _size(record: dict[str, Any]) -> tuple[int, int]:
    from PIL import Image

    with Image.open(record["file_name"]) as image:
        return image.height, image.width


def _model_output(prediction: Prediction, dataset: str) -> dict[str, Any]:
    """The prediction in the form of a model's output."""
    import torch

    from detectron2.data import MetadataCatalog
    from detectron2.structures import Boxes, Instances

    out: dict[str, Any] = {}
    labels, segments, instances = (prediction[k] for k in ("labels", "segments", "instances"))
    if labels is not None:
        names = MetadataCatalog.get(dataset).stuff_classes
        scores = np.zeros((len(names), *labels.shape), np.float32)
        # Where nothing is known a model says something too; it must not count.
        np.put_along_axis(scores, labels.clip(0)[None], 1, axis=0)
        out["sem_seg"] = torch.from_numpy(scores)
    if segments is not None:
        ids = np.zeros(segments[0]["mask"].shape, np.int32)
        for number, segment in enumerate(segments, 1):
            ids[segment["mask"]] = number
        described = [
            {"id": n, "category_id": s["category_id"], "isthing": s["isthing"]}
            for n, s in enumerate(segments, 1)
        ]
        out["panoptic_seg"] = (torch.from_numpy(ids), described)
    size = labels.shape if labels is not None else (96, 128)
    size = instances[0]["mask"].shape if instances else size
    result = Instances(size)
    masks = [i["mask"] for i in instances]
    stacked = np.stack(masks) if masks else np.zeros((0, *size), bool)
    result.pred_masks = torch.from_numpy(stacked).float()
    result.pred_boxes = Boxes(torch.zeros(len(instances), 4))
    result.scores = torch.tensor([float(i["score"]) for i in instances])
    result.pred_classes = torch.tensor([i["category_id"] for i in instances], dtype=torch.int64)
    out["instances"] = result
    return out
