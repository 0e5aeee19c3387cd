"""What all training mappers share: reading the image, augmenting, and the shape of a call."""

import copy
import logging
from typing import Any

import numpy as np

from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils

from .augmentations import large_scale_jitter, resize_crop_flip
from .reading import read_image

logger = logging.getLogger(__name__)


class TrainingMapper:
    """Base of the mappers.

    Attributes:
        is_train: always True for mappers without a test-time form.
        tfm_gens: the augmentations, in order.
        img_format: channel order the image is read in.
    """

    def __init__(self, is_train: bool, *, augmentations: list, image_format: str) -> None:
        self.is_train = is_train
        self.tfm_gens = augmentations
        self.img_format = image_format
        mode = "training" if is_train else "inference"
        logger.info("[%s] Augmentations used in %s: %s", type(self).__name__, mode, augmentations)

    def _start(self, dataset_dict: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
        """A private copy of the record with width and height filled in, and its image.

        Raises:
            ImageDecodeError: the image is missing or broken.
            SizeMismatchError: the image has another size than the record says (a ValueError).
        """
        record = _copy_record(dataset_dict)
        image = read_image(record["file_name"], self.img_format)
        utils.check_image_size(record, image)
        return record, image

    def _require_training(self) -> None:
        if not self.is_train:
            raise AssertionError(f"{type(self).__name__} should only be used for training!")


class LargeScaleJitterMapper(TrainingMapper):
    """Base of the COCO mappers with large-scale jitter: their config keys."""

    @configurable
    def __init__(self, is_train: bool = True, *, tfm_gens: list, image_format: str) -> None:
        """See `TrainingMapper`; ``tfm_gens`` are the augmentations."""
        super().__init__(is_train, augmentations=tfm_gens, image_format=image_format)

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict[str, Any]:
        """Reads INPUT.{IMAGE_SIZE, MIN_SCALE, MAX_SCALE, RANDOM_FLIP, FORMAT}."""
        return {
            "is_train": is_train,
            "tfm_gens": large_scale_jitter(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
        }


class PaddingMapper(TrainingMapper):
    """Base of the mask_former_* mappers: their config keys and padding.

    Attributes:
        ignore_label: label of pixels without ground truth.
        size_divisibility: side of the square that results are padded to; <= 0 for none.
        drop_vanished: whether segments of which the crop left nothing are dropped.
    """

    # Whether the crop looks at the semantic map; a semantic or panoptic mapper's does.
    category_crop = True
    # Whether ground truth is a list of segments, which may vanish; a semantic mapper's is not.
    has_segments = True
    # Whether the mapper chooses a box, and a ratio to resize by, before augmenting.
    samples_crops = False

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: list,
        image_format: str,
        ignore_label: int,
        size_divisibility: int,
        drop_vanished: bool = False,
    ) -> None:
        super().__init__(is_train, augmentations=augmentations, image_format=image_format)
        self.ignore_label = ignore_label
        self.size_divisibility = size_divisibility
        self.drop_vanished = drop_vanished

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict[str, Any]:
        """Reads the INPUT keys and the ignore label of the first training set."""
        arguments = {
            "is_train": is_train,
            "augmentations": resize_crop_flip(
                cfg, category_crop=cls.category_crop, samples_crops=cls.samples_crops
            ),
            "image_format": cfg.INPUT.FORMAT,
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
        }
        if cls.has_segments:
            arguments["drop_vanished"] = _drops_vanished(cfg)
        if cls.category_crop:
            name = cfg.DATASETS.TRAIN[0]
            ignore_label = MetadataCatalog.get(name).get("ignore_label")
            if ignore_label is None:
                raise ValueError(
                    f'DATASETS.TRAIN: "{name}" has no ignore_label in its metadata, so it is no '
                    f"semantic or panoptic set. {cls.__name__} needs one; for an instance set "
                    "choose INPUT.DATASET_MAPPER_NAME mask_former_instance or coco_instance_lsj."
                )
            arguments["ignore_label"] = ignore_label
        return arguments

    def _require_labels(self, record: dict[str, Any], key: str, kind: str) -> None:
        """Refuses a record that names no label file under ``key``, or has instance annotations.

        Raises:
            AssertionError: not training.
            ValueError: otherwise.
        """
        self._require_training()
        if key not in record:
            raise ValueError(
                f"Cannot find '{key}' for {kind} segmentation dataset {record.get('file_name')}"
            )
        if "annotations" in record:
            raise ValueError(
                f"{kind.capitalize()} segmentation dataset should not have 'annotations'."
            )


def _drops_vanished(cfg) -> bool:
    """INPUT.DROP_VANISHED_SEGMENTS; None means what the code that published the config does."""
    wanted = cfg.INPUT.DROP_VANISHED_SEGMENTS
    return bool(cfg.MODEL.MASK_FORMER.APPLY_IBS if wanted is None else wanted)


def _copy_record(dataset_dict: dict[str, Any]) -> dict[str, Any]:
    """A deep copy, except for annotations: mappers read those and never change or return them."""
    shallow = dict(dataset_dict)
    annotations = shallow.pop("annotations", None)
    record = copy.deepcopy(shallow)
    if annotations is not None:
        record["annotations"] = annotations
    return record
