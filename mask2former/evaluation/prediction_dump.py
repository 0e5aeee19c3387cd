"""Panoptic predictions as files, for whatever is to be computed from them offline [IBS]."""

import json
import logging
import os

import numpy as np
import torch
from PIL import Image

from detectron2.evaluation import DatasetEvaluator

from .background import Background

logger = logging.getLogger(__name__)


class PanopticPredictionDump(DatasetEvaluator):
    """Writes ``<image_id>.png`` and ``<image_id>.json`` of every panoptic prediction.

    The PNG holds segment ids (0 is void; 8 bit, 16 bit where an image has more than 255), the JSON
    the model's ``segments_info``: a list of ``{id, isthing, category_id (contiguous)}``.

    The published code writes the first input of each batch; its batches have one input.

    Args:
        folder: SAVE_DIR/SAVE_DIR_NAME; made if it does not exist.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._written = 0

    def reset(self) -> None:
        os.makedirs(self._folder, exist_ok=True)
        self._written = 0
        self._background = Background(lambda _: None)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for record, output in zip(inputs, outputs):
            ids, segments = output["panoptic_seg"]
            ids = ids.cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)
            image_id = record["image_id"]
            self._background.submit(image_id, self._write, image_id, ids, segments, size=ids.nbytes)
            self._written += 1

    def _write(self, image_id: object, ids: np.ndarray, segments: list[dict]) -> None:
        pixels = ids.astype(np.uint8 if ids.max(initial=0) < 256 else np.uint16)
        path = os.path.join(self._folder, str(image_id))
        Image.fromarray(pixels).save(path + ".png")
        with open(path + ".json", "w") as file:
            json.dump(segments, file)

    def evaluate(self) -> dict:
        self._background.finish()
        logger.info("Wrote %d panoptic predictions to %s", self._written, self._folder)
        return {}
