"""Registers the built-in data sets, under ``$DETECTRON2_DATASETS`` (default ``./datasets``).

Nothing is read until a data set is used. The layouts are those of detectron2's datasets/README.
"""

import os

from detectron2._missing import missing_getattr
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._files import dataset_root
from detectron2.data.datasets.builtin_meta import (
    ADE20K_SEM_SEG_CATEGORIES,
    _get_builtin_metadata,
)
from detectron2.data.datasets.cityscapes import load_cityscapes_instances, load_cityscapes_semantic
from detectron2.data.datasets.cityscapes_panoptic import register_all_cityscapes_panoptic
from detectron2.data.datasets.coco import load_sem_seg, register_coco_instances
from detectron2.data.datasets.coco_panoptic import (
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.lvis import get_lvis_instances_meta, register_lvis_instances
from detectron2.data.datasets.pascal_voc import register_pascal_voc

__all__ = [
    "register_all_ade20k",
    "register_all_cityscapes",
    "register_all_coco",
    "register_all_lvis",
    "register_all_pascal_voc",
]

# name -> (image folder, annotation file), below coco/
_COCO_INSTANCES = {
    "coco_2014_train": ("train2014", "instances_train2014.json"),
    "coco_2014_val": ("val2014", "instances_val2014.json"),
    "coco_2014_minival": ("val2014", "instances_minival2014.json"),
    "coco_2014_valminusminival": ("val2014", "instances_valminusminival2014.json"),
    "coco_2017_train": ("train2017", "instances_train2017.json"),
    "coco_2017_val": ("val2017", "instances_val2017.json"),
    "coco_2017_test": ("test2017", "image_info_test2017.json"),
    "coco_2017_test-dev": ("test2017", "image_info_test-dev2017.json"),
    "coco_2017_val_100": ("val2017", "instances_val2017_100.json"),
}
_COCO_PERSON = {
    "keypoints_coco_2014_train": ("train2014", "person_keypoints_train2014.json"),
    "keypoints_coco_2014_val": ("val2014", "person_keypoints_val2014.json"),
    "keypoints_coco_2014_minival": ("val2014", "person_keypoints_minival2014.json"),
    "keypoints_coco_2014_valminusminival": (
        "val2014",
        "person_keypoints_valminusminival2014.json",
    ),
    "keypoints_coco_2017_train": ("train2017", "person_keypoints_train2017.json"),
    "keypoints_coco_2017_val": ("val2017", "person_keypoints_val2017.json"),
    "keypoints_coco_2017_val_100": ("val2017", "person_keypoints_val2017_100.json"),
}
# name -> (image folder, suffix of the panoptic, semantic and instance files)
_COCO_PANOPTIC = {
    "coco_2017_train_panoptic": ("train2017", "train2017"),
    "coco_2017_val_panoptic": ("val2017", "val2017"),
    "coco_2017_val_100_panoptic": ("val2017", "val2017_100"),
}
# family of metadata -> name -> annotation file below lvis/; images are below coco/
_LVIS = {
    "lvis_v1": {
        "lvis_v1_train": "lvis_v1_train.json",
        "lvis_v1_val": "lvis_v1_val.json",
        "lvis_v1_test_dev": "lvis_v1_image_info_test_dev.json",
        "lvis_v1_test_challenge": "lvis_v1_image_info_test_challenge.json",
    },
    "lvis_v0.5": {
        "lvis_v0.5_train": "lvis_v0.5_train.json",
        "lvis_v0.5_val": "lvis_v0.5_val.json",
        "lvis_v0.5_val_rand_100": "lvis_v0.5_val_rand_100.json",
        "lvis_v0.5_test": "lvis_v0.5_image_info_test.json",
    },
    "lvis_v0.5_cocofied": {
        "lvis_v0.5_train_cocofied": "lvis_v0.5_train_cocofied.json",
        "lvis_v0.5_val_cocofied": "lvis_v0.5_val_cocofied.json",
    },
}
_PASCAL_VOC = {
    "VOC2007": ("trainval", "train", "val", "test"),
    "VOC2012": ("trainval", "train", "val"),
}


def register_all_coco(root: str) -> None:
    """COCO instances, person keypoints and panoptic (standard, separated, stuff only)."""
    annotations = os.path.join(root, "coco/annotations")
    for family, splits in (("coco", _COCO_INSTANCES), ("coco_person", _COCO_PERSON)):
        for name, (images, json_file) in splits.items():
            register_coco_instances(
                name,
                _get_builtin_metadata(family),
                os.path.join(annotations, json_file),
                os.path.join(root, "coco", images),
            )
    for name, (images, suffix) in _COCO_PANOPTIC.items():
        paths = {
            "image_root": os.path.join(root, "coco", images),
            "panoptic_root": os.path.join(root, "coco", f"panoptic_{suffix}"),
            "panoptic_json": os.path.join(annotations, f"panoptic_{suffix}.json"),
            "instances_json": os.path.join(annotations, f"instances_{suffix}.json"),
        }
        register_coco_panoptic_separated(
            name,
            _get_builtin_metadata("coco_panoptic_separated"),
            sem_seg_root=os.path.join(root, "coco", f"panoptic_stuff_{suffix}"),
            **paths,
        )
        register_coco_panoptic(name, _get_builtin_metadata("coco_panoptic_standard"), **paths)


def register_all_lvis(root: str) -> None:
    """LVIS v1, v0.5, and v0.5 with COCO's 80 classes."""
    for family, splits in _LVIS.items():
        for name, json_file in splits.items():
            register_lvis_instances(
                name,
                get_lvis_instances_meta(family),
                os.path.join(root, "lvis", json_file),
                os.path.join(root, "coco/"),
            )


def register_all_cityscapes(root: str) -> None:
    """Cityscapes instances and semantics, fine annotations."""
    for split in ("train", "val", "test"):
        image_dir = os.path.join(root, f"cityscapes/leftImg8bit/{split}/")
        gt_dir = os.path.join(root, f"cityscapes/gtFine/{split}/")
        _register_cityscapes_split(split, image_dir, gt_dir)


def _register_cityscapes_split(split: str, image_dir: str, gt_dir: str) -> None:
    name = f"cityscapes_fine_instance_seg_{split}"
    DatasetCatalog.register(
        name,
        lambda: load_cityscapes_instances(image_dir, gt_dir, from_json=True, to_polygons=True),
    )
    MetadataCatalog.get(name).set(
        image_dir=image_dir,
        gt_dir=gt_dir,
        evaluator_type="cityscapes_instance",
        **_get_builtin_metadata("cityscapes"),
    )
    name = f"cityscapes_fine_sem_seg_{split}"
    DatasetCatalog.register(name, lambda: load_cityscapes_semantic(image_dir, gt_dir))
    MetadataCatalog.get(name).set(
        image_dir=image_dir,
        gt_dir=gt_dir,
        evaluator_type="cityscapes_sem_seg",
        ignore_label=255,
        **_get_builtin_metadata("cityscapes"),
    )


def register_all_pascal_voc(root: str) -> None:
    """Pascal VOC 2007 and 2012 detection."""
    for folder, splits in _PASCAL_VOC.items():
        for split in splits:
            year = int(folder.removeprefix("VOC"))
            name = f"voc_{year}_{split}"
            register_pascal_voc(name, os.path.join(root, folder), split, year)
            MetadataCatalog.get(name).evaluator_type = "pascal_voc"


def register_all_ade20k(root: str) -> None:
    """ADE20K SceneParse150 semantics."""
    base = os.path.join(root, "ADEChallengeData2016")
    for split, folder in (("train", "training"), ("val", "validation")):
        _register_ade20k_split(
            f"ade20k_sem_seg_{split}",
            os.path.join(base, "images", folder),
            os.path.join(base, "annotations_detectron2", folder),
        )


def _register_ade20k_split(name: str, image_dir: str, gt_dir: str) -> None:
    DatasetCatalog.register(
        name, lambda: load_sem_seg(gt_dir, image_dir, gt_ext="png", image_ext="jpg")
    )
    MetadataCatalog.get(name).set(
        stuff_classes=list(ADE20K_SEM_SEG_CATEGORIES),
        image_root=image_dir,
        sem_seg_root=gt_dir,
        evaluator_type="sem_seg",
        ignore_label=255,
    )


_root = dataset_root()
register_all_coco(_root)
register_all_lvis(_root)
register_all_cityscapes(_root)
register_all_cityscapes_panoptic(_root)
register_all_pascal_voc(_root)
register_all_ade20k(_root)

__getattr__ = missing_getattr(__name__)
