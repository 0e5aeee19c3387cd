"""Pictures for TensorBoard: input, ground truth and prediction of the first test images."""

import logging

import numpy as np
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from detectron2.utils.visualizer import Visualizer
from mask2former.data.drawable import drawable_record, for_drawing
from mask2former.inference.drawing import draw_predictions

logger = logging.getLogger(__name__)

# Longer side of each of the three panels in pixels; small images are enlarged, so that labels fit.
_SIDE = 480
_MAX_SCALE = 4.0


class PredictionPictures(DatasetEvaluator):
    """Rides along with an evaluation during training; measures nothing.

    The main process keeps the first ``count`` predictions it sees and puts one picture each into
    the event storage when the evaluation ends.
    """

    def __init__(self, dataset_name: str, count: int):
        self._dataset_name = dataset_name
        self._count = count if comm.is_main_process() else 0
        self._records: dict[str, dict] | None = None
        self.reset()

    def reset(self) -> None:
        self._kept: list[tuple[str, dict]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for item, output in zip(inputs, outputs):
            if len(self._kept) < self._count:
                self._kept.append((item["file_name"], _on_cpu(output)))

    def evaluate(self) -> None:
        if not self._kept:
            return
        records = {r["file_name"]: r for r in DatasetCatalog.get(self._dataset_name)}
        for index, (file_name, output) in enumerate(self._kept):
            picture = self._draw(records[file_name], output)
            name = f"{self._dataset_name}/{index}_input_truth_prediction"
            get_event_storage().put_image(name, picture.transpose(2, 0, 1))
        self.reset()

    def _draw(self, record: dict, output: dict) -> np.ndarray:
        """RGB uint8 ``[h, 3 w, 3]``."""
        image = read_image(record["file_name"], "RGB")
        scale = min(_MAX_SCALE, _SIDE / max(image.shape[:2]))
        metadata = for_drawing(MetadataCatalog.get(self._dataset_name))
        record = drawable_record(record, metadata)
        blank = Visualizer(image, metadata, scale=scale).get_output()
        truth = Visualizer(image, metadata, scale=scale).draw_dataset_dict(_once(record))
        guess = draw_predictions(image[:, :, ::-1], output, metadata, scale=scale)
        return np.concatenate([p.get_image() for p in (blank, truth, guess)], axis=1)


def _once(record: dict) -> dict:
    """Without the semantic map where the panoptic one says the same."""
    if "pan_seg_file_name" not in record:
        return record
    return {key: value for key, value in record.items() if key != "sem_seg_file_name"}


def _on_cpu(output: dict) -> dict:
    """Panoptic map and instances, else the label map; full class scores would fill the memory."""
    kept = {}
    if "panoptic_seg" in output:
        pixels, segments = output["panoptic_seg"]
        kept["panoptic_seg"] = (pixels.cpu(), [dict(s) for s in segments])
    elif "instances" in output:
        kept["instances"] = output["instances"].to("cpu")
    elif "sem_seg" in output:
        kept["sem_seg"] = _one_hot(output["sem_seg"])
    return kept


def _one_hot(sem_seg: torch.Tensor) -> torch.Tensor:
    """bool ``[K, H, W]``: the same argmax in a quarter of the memory."""
    labels = sem_seg.argmax(dim=0, keepdim=True).cpu()
    return torch.zeros(sem_seg.shape, dtype=torch.uint8).scatter_(0, labels, 1)
