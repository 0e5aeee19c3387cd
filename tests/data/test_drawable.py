"""Every registered panoptic set can be drawn, whatever its ids and records look like."""

import numpy as np
import pytest
import torch

from detectron2.data import MetadataCatalog
from detectron2.utils.visualizer import Visualizer
from mask2former.data.drawable import drawable_record, for_drawing
from mask2former.inference import draw_predictions

IMAGE = np.full((32, 32, 3), 127, np.uint8)
PIXELS = torch.ones(32, 32, dtype=torch.int32)


def test_thing_ids_of_ade20k_name_the_class_among_all_150():
    metadata = for_drawing(MetadataCatalog.get("ade20k_panoptic_val"))
    assert [metadata.thing_classes[i] for i in (7, 149)] == ["bed", "flag"]
    assert len(MetadataCatalog.get("ade20k_panoptic_val").thing_classes) == 100


def test_metadata_that_fits_is_returned_as_it_is():
    metadata = MetadataCatalog.get("coco_2017_val_panoptic_with_sem_seg")
    assert for_drawing(metadata) is metadata


def test_a_prediction_of_the_last_ade20k_class_is_drawn():
    segments = [{"id": 1, "isthing": True, "category_id": 149}]
    metadata = MetadataCatalog.get("ade20k_panoptic_val")
    drawn = draw_predictions(IMAGE, {"panoptic_seg": (PIXELS, segments)}, metadata)
    assert (drawn.get_image() != IMAGE).any()


@pytest.mark.parametrize(("category", "isthing"), [(0, False), (11, True), (18, True)])
def test_cityscapes_segments_learn_whether_they_are_things(category, isthing):
    metadata = MetadataCatalog.get("cityscapes_fine_panoptic_val")
    record = {"segments_info": [{"id": 1, "category_id": category}]}
    made = drawable_record(record, metadata)
    assert made["segments_info"] == [{"id": 1, "category_id": category, "isthing": isthing}]
    assert "isthing" not in record["segments_info"][0]
    Visualizer(IMAGE, metadata).draw_panoptic_seg(PIXELS, made["segments_info"])
