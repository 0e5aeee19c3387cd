"""Pairs of crops around segments of one class at one size (Intra-Batch Supervision)."""

from typing import Any

import numpy as np

from detectron2.config import configurable
from detectron2.data import MetadataCatalog

from .crop_sampling import SegmentIndex
from .mask_former_panoptic_dataset_mapper import MaskFormerPanopticDatasetMapper


class MaskFormerPanopticDatasetMapperCropSampling(MaskFormerPanopticDatasetMapper):
    """``INPUT.DATASET_MAPPER_NAME: mask_former_panoptic_cropsampling``.

    A record is ``{"cat_id": dataset category id}``; what comes out is ``{"height", "width", 0:
    sample, 1: sample}``, each sample like one of `MaskFormerPanopticDatasetMapper`. Both show a
    segment of the category, things at about the same size, drawn from INPUT.SCALE_OPTIONS.
    Segments with at most one visible pixel are dropped. Height and width are INPUT.CROP.SIZE.
    """

    samples_crops = True

    @configurable
    def __init__(
        self,
        cfg,
        is_train: bool = True,
        *,
        augmentations: list,
        image_format: str,
        ignore_label: int,
        size_divisibility: int,
    ) -> None:
        """See `PaddingMapper`.

        Args:
            cfg: reads DATASETS.TRAIN, whose metadata has ``images_per_cat_json``,
                ``json_per_img_dir`` and the id maps, INPUT.SCALE_OPTIONS, INPUT.CROP.SIZE and
                INPUT.NEW_SAMPLING_CROWD.

        Raises:
            ValueError: several training sets (a category id belongs to one), one that is not
                prepared for crop sampling, or no sizes.
            FileNotFoundError: the index of the training set does not exist.
        """
        super().__init__(
            is_train,
            augmentations=augmentations,
            image_format=image_format,
            ignore_label=ignore_label,
            size_divisibility=size_divisibility,
            drop_vanished=True,
        )
        self._sizes = list(cfg.INPUT.SCALE_OPTIONS)
        self._shape = tuple(cfg.INPUT.CROP.SIZE)
        if not self._sizes:
            raise ValueError("INPUT.SCALE_OPTIONS is empty: name the sizes to bring things to")
        self._index = _index_of(cfg)

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict[str, Any]:
        """The published keys of INPUT, and the ignore label of the training set."""
        arguments = super().from_config(cfg, is_train)
        del arguments["drop_vanished"]  # always
        return {"cfg": cfg, **arguments}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[int | str, Any]:
        """Draws and maps two samples of a category.

        Raises:
            AssertionError: not training.
            ValueError: the record has no ``cat_id``, or the index does not fit the images.
        """
        self._require_training()
        if "cat_id" not in dataset_dict:
            raise ValueError(
                f"{type(self).__name__} needs records with 'cat_id'; set DATASETS.TRAIN to a "
                "*_cropsampling set"
            )
        category = dataset_dict["cat_id"]
        size = self._sizes[np.random.randint(len(self._sizes))]
        height, width = self._shape
        samples = {i: self._draw(category, size) for i in range(2)}
        return {"height": height, "width": width, **samples}

    def _draw(self, category: int, size: int) -> dict[str, Any]:
        """One sample that shows a segment of ``category``, a thing at ``size`` pixels a side."""
        record = self._index.draw_image(category)
        x, y, w, h = self._index.draw_segment(record, category)["bbox"]
        ratio = None
        if self._index.is_thing(category):
            ratio = np.float32(size / np.sqrt(max(w * h, 1)))
        return self._map(record, boxes=np.array([[x, y, x + w, y + h]]), ratio=ratio)


def _index_of(cfg) -> SegmentIndex:
    if len(cfg.DATASETS.TRAIN) != 1:
        raise ValueError(
            "DATASETS.TRAIN must name one data set for mask_former_panoptic_cropsampling: its "
            f"records are categories, which belong to a set; it is {tuple(cfg.DATASETS.TRAIN)}"
        )
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    needed = (
        "images_per_cat_json",
        "json_per_img_dir",
        "thing_dataset_id_to_contiguous_id",
        "stuff_dataset_id_to_contiguous_id",
    )
    missing = [key for key in needed if metadata.get(key) is None]
    if missing:
        raise ValueError(
            f'DATASETS.TRAIN: "{cfg.DATASETS.TRAIN[0]}" has no {", ".join(missing)} in its '
            "metadata, which crop sampling needs; choose a *_cropsampling set"
        )
    return SegmentIndex(
        metadata.images_per_cat_json,
        metadata.json_per_img_dir,
        thing_ids=metadata.thing_dataset_id_to_contiguous_id,
        stuff_ids=metadata.stuff_dataset_id_to_contiguous_id,
        choose_crowd=cfg.INPUT.NEW_SAMPLING_CROWD,
    )
