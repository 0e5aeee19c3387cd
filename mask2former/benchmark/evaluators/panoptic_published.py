"""The steps of detectron2's COCOPanopticEvaluator, written out plainly, and a set for it.

A predicted map becomes an RGB PNG in memory; in the end all of them are written into a temporary
folder with a ``predictions.json``, and panopticapi's comparison reads both PNGs of every image.
"""

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detectron2.data import MetadataCatalog
from mask2former.evaluation.id_map import read_id_map

from .panoptic_files import write_pairs
from .panoptic_reference import pq_plainly

Pairs = list[tuple[dict, dict]]
NAME = "benchmark-panoptic"
_FACTOR = 1237  # by which write_pairs spreads ids


def predicted_pairs(folder: Path, images: int) -> tuple[str, str, Pairs]:
    """Files of :func:`write_pairs`, and the same predictions as a model gives them.

    The data set is registered as :data:`NAME`. Maps are int32, ids count from 1.
    """
    truth, predictions = write_pairs(folder, images)
    content = json.loads(Path(predictions).read_text())
    things = [c["id"] for c in content["categories"] if c["isthing"]]
    stuff = [c["id"] for c in content["categories"] if not c["isthing"]]
    MetadataCatalog.pop(NAME, None)
    MetadataCatalog.get(NAME).set(
        panoptic_json=truth,
        panoptic_root=truth.removesuffix(".json"),
        thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(things)},
        stuff_dataset_id_to_contiguous_id={c: i for i, c in enumerate(stuff)},
        label_divisor=1000,
    )
    pairs = []
    for annotation in content["annotations"]:
        ids = read_id_map(f"{predictions.removesuffix('.json')}/{annotation['file_name']}")
        segments = [
            {
                "id": segment["id"] // _FACTOR,
                "isthing": segment["category_id"] in things,
                "category_id": (things if segment["category_id"] in things else stuff).index(
                    segment["category_id"]
                ),
            }
            for segment in annotation["segments_info"]
        ]
        pixels = torch.from_numpy((ids // _FACTOR).astype(np.int32))
        record = {"image_id": annotation["image_id"], "file_name": annotation["file_name"]}
        pairs.append((record, {"panoptic_seg": (pixels, segments)}))
    return truth, predictions, pairs


class PublishedPanopticEvaluator:
    """``process`` and ``evaluate`` as published, the comparison in one process."""

    def __init__(self) -> None:
        self._metadata = MetadataCatalog.get(NAME)
        self._things, self._stuff = (
            {contiguous: dataset_id for dataset_id, contiguous in ids.items()}
            for ids in (
                self._metadata.thing_dataset_id_to_contiguous_id,
                self._metadata.stuff_dataset_id_to_contiguous_id,
            )
        )
        self.reset()

    def reset(self) -> None:
        self._predictions: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for record, output in zip(inputs, outputs):
            ids, segments = output["panoptic_seg"]
            png = io.BytesIO()
            Image.fromarray(_rgb(ids.cpu().numpy())).save(png, format="PNG")
            converted = []
            for segment in segments:
                category = (self._things if segment["isthing"] else self._stuff)[
                    segment["category_id"]
                ]
                converted.append({"id": segment["id"], "category_id": category})
            self._predictions.append(
                {
                    "image_id": record["image_id"],
                    "file_name": Path(record["file_name"]).stem + ".png",
                    "png_string": png.getvalue(),
                    "segments_info": converted,
                }
            )

    def evaluate(self) -> dict[int, dict[str, float]]:
        """PQ, SQ and RQ of each category, in [0, 1]."""
        truth = self._metadata.panoptic_json
        content = json.loads(Path(truth).read_text())
        with tempfile.TemporaryDirectory(prefix="panoptic_eval") as temporary:
            folder = Path(temporary) / "predictions"
            folder.mkdir()
            for prediction in self._predictions:
                (folder / prediction["file_name"]).write_bytes(prediction.pop("png_string"))
            content["annotations"] = self._predictions
            path = Path(temporary) / "predictions.json"
            path.write_text(json.dumps(content))
            return pq_plainly(truth, str(path))


def _rgb(ids: np.ndarray) -> np.ndarray:
    """Ids as colours, a byte after the other (panopticapi's ``id2rgb``)."""
    rest = ids.copy()
    rgb = np.zeros((*ids.shape, 3), np.uint8)
    for channel in range(3):
        rgb[..., channel] = rest % 256
        rest //= 256
    return rgb
