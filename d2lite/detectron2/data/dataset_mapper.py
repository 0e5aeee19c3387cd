"""The default mapper: a record of a data set -> what a model takes."""

import copy
import logging
from typing import Any

import numpy as np
import torch

from detectron2._missing import missing_getattr
from detectron2.config import configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

__all__ = ["DatasetMapper"]


class DatasetMapper:
    """Reads the image, augments it with its annotations, and makes tensors of them.

    Args:
        is_train: keep annotations, as ``instances``.
        augmentations: applied in this order.
        image_format: of ``detection_utils.read_image``.
        use_instance_mask: load masks.
        use_keypoint: load keypoints.
        instance_mask_format: "polygon" or "bitmask".
        keypoint_hflip_indices: see ``detection_utils.create_keypoint_hflip_indices``.
        precomputed_proposal_topk: load that many precomputed proposals.
        recompute_boxes: boxes tight around the transformed masks, instead of transformed boxes.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: list[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
    ) -> None:
        if recompute_boxes and not use_instance_mask:
            raise AssertionError("recompute_boxes needs instance masks (use_instance_mask)")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.use_keypoint = use_keypoint
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.proposal_topk = precomputed_proposal_topk
        self.recompute_boxes = recompute_boxes
        mode = "training" if is_train else "inference"
        logging.getLogger(__name__).info(
            "[DatasetMapper] Augmentations used in %s: %s", mode, augmentations
        )

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool = True) -> dict[str, Any]:
        augmentations = utils.build_augmentation(cfg, is_train)
        crops = cfg.INPUT.CROP.ENABLED and is_train
        if crops:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        arguments = {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            # A crop cuts masks off, and the transformed box would be too large.
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
        }
        if cfg.MODEL.KEYPOINT_ON:
            arguments["keypoint_hflip_indices"] = utils.create_keypoint_hflip_indices(
                cfg.DATASETS.TRAIN
            )
        if cfg.MODEL.LOAD_PROPOSALS:
            arguments["precomputed_proposal_topk"] = (
                cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN
                if is_train
                else cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
            )
        return arguments

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one record (which is left as it is).

        Returns:
            a copy with ``image`` (uint8 [C, H, W]) and, where the record has them, ``sem_seg``
            (int64 [H, W]), ``proposals`` and (training) ``instances``. Without training,
            ``annotations`` and ``sem_seg_file_name`` are left out.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = utils.read_image(dataset_dict["file_name"], format=self.image_format)
        utils.check_image_size(dataset_dict, image)
        sem_seg = None
        if "sem_seg_file_name" in dataset_dict:
            sem_seg = utils.read_image(dataset_dict.pop("sem_seg_file_name"), "L").squeeze(2)

        aug_input = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(aug_input)
        image, sem_seg = aug_input.image, aug_input.sem_seg
        image_size = image.shape[:2]

        # [H, W, C] -> [C, H, W]; grey images may come without a channel axis.
        pixels = np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1))
        dataset_dict["image"] = _tensor(pixels)
        if sem_seg is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(sem_seg.astype(np.int64))
        if self.proposal_topk is not None:
            utils.transform_proposals(
                dataset_dict, image_size, transforms, proposal_topk=self.proposal_topk
            )
        if not self.is_train:
            dataset_dict.pop("annotations", None)
            return dataset_dict
        if "annotations" in dataset_dict:
            self._transform_annotations(dataset_dict, transforms, image_size)
        return dataset_dict

    def _transform_annotations(
        self, dataset_dict: dict, transforms: T.TransformList, image_size: tuple[int, int]
    ) -> None:
        """Replace ``annotations`` by ``instances``; crowd regions are left out."""
        annotations = dataset_dict.pop("annotations")
        for annotation in annotations:
            if not self.use_instance_mask:
                annotation.pop("segmentation", None)
            if not self.use_keypoint:
                annotation.pop("keypoints", None)
        annotations = [
            utils.transform_instance_annotations(
                annotation,
                transforms,
                image_size,
                keypoint_hflip_indices=self.keypoint_hflip_indices,
            )
            for annotation in annotations
            if annotation.get("iscrowd", 0) == 0
        ]
        instances = utils.annotations_to_instances(
            annotations, image_size, mask_format=self.instance_mask_format
        )
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = utils.filter_empty_instances(instances)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Share memory, unless the array is read-only (as Pillow's buffers are)."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


__getattr__ = missing_getattr(__name__)
