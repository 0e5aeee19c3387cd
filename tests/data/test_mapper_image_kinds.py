"""Every mapper reads every common kind of image, and names a file that does not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog
from mask2former.data import build_train_mapper

MAPPERS = {
    "mask_former_semantic": "tinyshapes_sem_seg_train",
    "mask_former_panoptic": "tinyshapes_panoptic_train_with_sem_seg",
    "mask_former_instance": "tinyshapes_instance_train",
    "coco_instance_lsj": "tinyshapes_instance_train",
    "coco_panoptic_lsj": "tinyshapes_panoptic_train",
    "safetybarrier_instance_lsj": "tinyshapes_instance_train",
}
KINDS = {
    "grey": ("L", "png"),
    "grey jpeg": ("L", "jpg"),
    "grey with alpha": ("LA", "png"),
    "colour with alpha": ("RGBA", "png"),
    "palette": ("P", "png"),
    "black and white": ("1", "png"),
    "print": ("CMYK", "jpg"),
}


@pytest.fixture(params=MAPPERS)
def mapper_and_record(request, make_cfg, seeded_numpy):
    name = request.param
    return build_train_mapper(make_cfg(name, MAPPERS[name])), DatasetCatalog.get(MAPPERS[name])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_become_three_channels(mapper_and_record, tmp_path, kind):
    mapper, record = mapper_and_record
    mode, suffix = KINDS[kind]
    path = tmp_path / f"image.{suffix}"
    with Image.open(record["file_name"]) as image:
        image.convert(mode).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    mapped = mapper({**record, "file_name": str(path)})
    assert mapped["image"].dtype == torch.uint8
    assert mapped["image"].shape[0] == 3
    assert len(mapped["instances"]) > 0


def test_a_turned_image_is_put_upright_before_anything_else(mapper_and_record, tmp_path):
    mapper, record = mapper_and_record
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[274] = 6  # stored turned to the left: show it turned to the right
    with Image.open(record["file_name"]) as image:
        image.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    np.random.seed(3)
    turned = mapper({**record, "file_name": str(path)})
    np.random.seed(3)
    upright = mapper(record)
    if record["file_name"].endswith(".png"):
        assert torch.equal(turned["image"], upright["image"])
    assert turned["image"].shape == upright["image"].shape
    assert torch.equal(turned["instances"].gt_masks, upright["instances"].gt_masks)


def test_another_size_than_recorded_names_the_file(mapper_and_record, tmp_path):
    mapper, record = mapper_and_record
    path = tmp_path / "other_size.png"
    Image.new("RGB", (9, 7)).save(path)
    with pytest.raises(ValueError, match=r"other_size\.png.*9x7"):
        mapper({**record, "file_name": str(path), "width": 9, "height": 8})


@pytest.mark.parametrize("suffix", ["sem_seg", "pan_seg"])
def test_a_label_map_of_another_size_is_named(make_cfg, seeded_numpy, tmp_path, suffix):
    dataset = "tinyshapes_panoptic_train_with_sem_seg"
    path = tmp_path / "other_labels.png"
    Image.new("L" if suffix == "sem_seg" else "RGB", (7, 5)).save(path)
    record = {**DatasetCatalog.get(dataset)[0], f"{suffix}_file_name": str(path)}
    with pytest.raises(ValueError, match=r"other_labels\.png is 7x5 but its image is"):
        build_train_mapper(make_cfg("mask_former_panoptic", dataset))(record)
