"""The meta architecture of MaskFormer and Mask2Former: image in, losses or segments out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_sem_seg_head
from detectron2.modeling.backbone import Backbone
from detectron2.structures import ImageList, Instances

from .modeling.build_criterion import build_criterion
from .modeling.criterion import SetCriterion  # noqa: F401 - the published module has the name, too
from .modeling.matcher import HungarianMatcher  # noqa: F401 - so has it this one
from .modeling.postprocessing import Frame, Settings, segment


@META_ARCH_REGISTRY.register()
class MaskFormer(nn.Module):
    """Mask classification for panoptic, instance and semantic segmentation.

    Args:
        backbone: gives a dict of feature maps.
        sem_seg_head: from these to class logits and masks of the queries.
        criterion: losses, with ``weight_dict`` and ``num_classes``.
        num_queries: Q.
        object_mask_threshold: panoptic: class probability a query must exceed.
        overlap_threshold: panoptic: least share of its mask that a segment must win.
        metadata: of the training set; tells things from stuff.
        size_divisibility: batches are padded to multiples of it; negative: the backbone's own.
        sem_seg_postprocess_before_inference: resize masks, not class scores, to the output size.
        pixel_mean, pixel_std: per channel, in the order of the input's channels.
        semantic_on, panoptic_on, instance_on: the outputs of inference.
        test_topk_per_image: most instances per image.

    Raises:
        ValueError: masks would not be resized although panoptic or instance output is on.
    """

    segment = staticmethod(segment)  # post-processing; MODEL.COMPILE puts a compiled one here

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        criterion: nn.Module,
        num_queries: int,
        object_mask_threshold: float,
        overlap_threshold: float,
        metadata,
        size_divisibility: int,
        sem_seg_postprocess_before_inference: bool,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        semantic_on: bool,
        panoptic_on: bool,
        instance_on: bool,
        test_topk_per_image: int,
    ) -> None:
        super().__init__()
        if not semantic_on and not sem_seg_postprocess_before_inference:
            raise ValueError(
                "without MODEL.MASK_FORMER.TEST.SEMANTIC_ON, masks have to be resized first: set "
                "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE True, or "
                "PANOPTIC_ON or INSTANCE_ON, beside it"
            )
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.num_queries = num_queries
        self.object_mask_threshold = object_mask_threshold
        self.overlap_threshold = overlap_threshold
        self.metadata = metadata
        if size_divisibility < 0:
            size_divisibility = backbone.size_divisibility
        self.size_divisibility = size_divisibility
        self.sem_seg_postprocess_before_inference = sem_seg_postprocess_before_inference
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.semantic_on = semantic_on
        self.panoptic_on = panoptic_on
        self.instance_on = instance_on
        self.test_topk_per_image = test_topk_per_image
        # Labels instead of class scores, bool masks; see fast_inference.compact_outputs.
        self.compact_outputs = False

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        head = build_sem_seg_head(cfg, backbone.output_shape())
        mask_former = cfg.MODEL.MASK_FORMER
        test = mask_former.TEST
        datasets = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        return {
            "backbone": backbone,
            "sem_seg_head": head,
            "criterion": build_criterion(cfg),
            "num_queries": mask_former.NUM_OBJECT_QUERIES,
            "object_mask_threshold": test.OBJECT_MASK_THRESHOLD,
            "overlap_threshold": test.OVERLAP_THRESHOLD,
            "metadata": MetadataCatalog.get(datasets[0]) if datasets else None,
            "size_divisibility": mask_former.SIZE_DIVISIBILITY,
            "sem_seg_postprocess_before_inference": (
                test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE or test.PANOPTIC_ON or test.INSTANCE_ON
            ),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "semantic_on": test.SEMANTIC_ON,
            "panoptic_on": test.PANOPTIC_ON,
            "instance_on": test.INSTANCE_ON,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: per image a dict with

                * ``image``: uint8 or float [3, H, W] in the channel order of the config,
                * ``instances`` (training): Instances with ``gt_classes`` int64 [n] and
                  ``gt_masks`` bool [n, H, W],
                * ``height``, ``width`` (inference): requested output size, by default H and W;

                or, from crop sampling, per pair a dict of two such dicts under the keys 0 and 1.

        Returns:
            In training weighted losses by name. In inference per image a dict with, as configured,

                * ``sem_seg``: class scores [K, height, width],
                * ``panoptic_seg``: int32 ids [height, width] and a list of segments with ``id``,
                  ``isthing`` and ``category_id``,
                * ``instances``: Instances, see
                  :class:`~mask2former.modeling.postprocessing.instance.InstanceTask`.
        """
        batched_inputs = unpaired(batched_inputs)
        images = self.preprocess_image(batched_inputs)  # [B, 3, H, W], padded
        outputs = self.predictions(images.tensor)  # [B, Q, K + 1], [B, Q, H/4, W/4], aux
        if self.training:
            targets = self.prepare_targets(ground_truth(batched_inputs), images)
            return self.losses(outputs, targets)
        return self.inference(outputs, images, batched_inputs)

    def predictions(self, images: Tensor) -> dict:
        """The network: normalised images [B, 3, H, W] to the outputs of its head."""
        features = self.backbone(images)  # res2 ... res5: [B, C_i, H/s, W/s]
        return self.sem_seg_head(features)

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalises the images, then pads them with zeros to one size."""
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        images = [image.to(self.pixel_mean.dtype) for image in images]  # model.half() is 16 bits
        return ImageList.from_tensors(images, self.size_divisibility)

    def losses(self, outputs: dict, targets: list[dict]) -> dict[str, Tensor]:
        """Weighted losses; those without a weight are left out."""
        weights = self.criterion.weight_dict
        if not any(name.rpartition("_")[2].isdecimal() for name in weights):
            # Without deep supervision, the earlier predictions need not be matched at all.
            outputs.pop("aux_outputs", None)
        losses = self.criterion(outputs, targets)
        return {name: loss * weights[name] for name, loss in losses.items() if name in weights}

    def prepare_targets(self, targets: list[Instances], images: ImageList) -> list[dict]:
        """Ground truth as the criterion wants it, padded like the batch.

        Returns:
            Per image ``labels`` int64 [n] and ``masks`` bool [n, H, W] on the model's device.

        Raises:
            ValueError: a label that the model has no class for.
        """
        height, width = images.tensor.shape[-2:]
        prepared = []
        for i, instances in enumerate(targets):
            labels, masks = instances.gt_classes, instances.gt_masks
            masks = getattr(masks, "tensor", masks)  # BitMasks or a plain tensor
            self._check_labels(labels, i)
            masks = masks.to(self.device, non_blocking=True)
            padding = (0, width - masks.shape[-1], 0, height - masks.shape[-2])
            prepared.append(
                {
                    "labels": labels.to(self.device, non_blocking=True),
                    "masks": F.pad(masks, padding) if any(padding) else masks,
                }
            )
        return prepared

    def _check_labels(self, labels: Tensor, image: int) -> None:
        # Labels that are on a GPU already are not looked at: that would stop it.
        num_classes = self.criterion.num_classes
        if labels.device.type != "cpu" or not len(labels):
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"gt_classes of image {image} of the batch has label {low if low < 0 else high}, "
                f"but MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes} (labels 0 to "
                f"{num_classes - 1}): set it to the number of classes of DATASETS.TRAIN"
            )

    @torch.no_grad()
    def inference(self, outputs: dict, images: ImageList, batched_inputs: list[dict]) -> list[dict]:
        """Post-processing of a batch; see :meth:`forward` for what it gives."""
        padded = tuple(images.tensor.shape[-2:])
        early = self.sem_seg_postprocess_before_inference
        frames, requested = [], []
        for record, valid in zip(batched_inputs, images.image_sizes):
            valid = (int(valid[0]), int(valid[1]))
            size = (int(record.get("height", valid[0])), int(record.get("width", valid[1])))
            frames.append(Frame(padded, valid, size if early else valid))
            requested.append(size)
        logits, masks = outputs["pred_logits"], outputs["pred_masks"]
        return self.segment(logits, masks, frames, self._settings(), None if early else requested)

    def semantic_inference(self, mask_cls: Tensor, mask_pred: Tensor) -> Tensor:
        """Class logits [Q, K + 1], mask logits [Q, H, W] -> scores [K, H, W]."""
        return self._segment_one(mask_cls, mask_pred, semantic=True)["sem_seg"]

    def panoptic_inference(self, mask_cls: Tensor, mask_pred: Tensor) -> tuple[Tensor, list[dict]]:
        """Class logits [Q, K + 1], mask logits [Q, H, W] -> int32 ids [H, W], segments."""
        return self._segment_one(mask_cls, mask_pred, panoptic=True)["panoptic_seg"]

    def instance_inference(self, mask_cls: Tensor, mask_pred: Tensor) -> Instances:
        """Class logits [Q, K + 1], mask logits [Q, H, W] -> at most ``topk`` instances."""
        return self._segment_one(mask_cls, mask_pred, instance=True)["instances"]

    def _segment_one(self, mask_cls: Tensor, mask_pred: Tensor, **tasks: bool):
        settings = self._settings(**tasks)
        (result,) = segment(mask_cls[None], mask_pred[None], [None], settings)
        return result

    def _settings(self, **tasks: bool) -> Settings:
        """The settings of post-processing, for the configured tasks or those given."""
        compact = self.compact_outputs and not tasks  # those given are the published functions'
        if not tasks:
            tasks = {
                "semantic": self.semantic_on,
                "panoptic": self.panoptic_on,
                "instance": self.instance_on,
            }
        # Published: beside panoptic output, only things are instances.
        only_things = self.panoptic_on
        needs_things = tasks.get("panoptic") or (tasks.get("instance") and only_things)
        return Settings(
            **tasks,
            object_mask_threshold=self.object_mask_threshold,
            overlap_threshold=self.overlap_threshold,
            topk=self.test_topk_per_image,
            things=self._thing_ids() if needs_things else frozenset(),
            only_things=only_things,
            compact=compact,
        )

    def _thing_ids(self) -> frozenset[int]:
        things = getattr(self.metadata, "thing_dataset_id_to_contiguous_id", None)
        if things is None:
            name = getattr(self.metadata, "name", "no dataset")
            raise ValueError(
                "panoptic output needs to know which classes are things, but the metadata of "
                f"DATASETS.TRAIN[0] ({name}) has no thing_dataset_id_to_contiguous_id: register "
                "the dataset, or set MODEL.MASK_FORMER.TEST.PANOPTIC_ON False"
            )
        return frozenset(things.values())


def unpaired(batched_inputs: list[dict]) -> list[dict]:
    """Crop sampling's pairs one by one: item 0's sample 0 and 1, item 1's sample 0, ... [IBS]."""
    if not any("image" not in item and 0 in item for item in batched_inputs):
        return batched_inputs
    return [item[i] for item in batched_inputs for i in (0, 1)]


def ground_truth(batched_inputs: list[dict]) -> list[Instances]:
    """The ``instances`` of every input.

    Raises:
        KeyError: an input has none.
    """
    missing = [i for i, record in enumerate(batched_inputs) if "instances" not in record]
    if missing:
        raise KeyError(
            f"training needs 'instances' in every input; inputs {missing} of the batch have none. "
            "INPUT.DATASET_MAPPER_NAME selects a mapper that gives them"
        )
    return [record["instances"] for record in batched_inputs]
