"""Post-processing under measurement: ours, the plain formula, and transformers'."""

import dataclasses
from collections.abc import Callable, Collection
from types import SimpleNamespace

import torch

from mask2former.modeling.postprocessing import Frame, Settings, segment
from mask2former.modeling.postprocessing.plain import segment_plainly

from . import parity
from .trained_like import trained_like

# Scores are sums of up to a million values in another order.
SCORE_TOLERANCE = 1e-4


class PostProcessing:
    """The same logits for all.

    Args:
        tasks: of semantic, panoptic, instance.
        size: (height, width) of the network's input before padding to multiples of 32.
        output: of the maps.
    """

    def __init__(
        self,
        tasks: Collection[str],
        size: tuple[int, int],
        output: tuple[int, int],
        queries: int,
        classes: int,
        device: str = "cpu",
    ) -> None:
        padded = tuple(-(-side // 32) * 32 for side in size)
        self.frame = Frame(padded, tuple(size), tuple(output))
        self.logits, self.masks = trained_like(
            queries, classes, (padded[0] // 4, padded[1] // 4), device
        )
        self.classes = classes
        self.device = device
        self.settings = Settings(
            **dict.fromkeys(tasks, True),
            object_mask_threshold=0.8,
            overlap_threshold=0.8,
            things=frozenset(range(classes * 80 // 133)),
            only_things="panoptic" in tasks,
        )

    def ours(self) -> dict:
        """What evaluation and annotation use: labels and bool masks."""
        return self._segment(dataclasses.replace(self.settings, compact=True))

    def scores(self) -> dict:
        """What the model gives by default, as published: class scores and float masks."""
        return self._segment(self.settings)

    def _segment(self, settings: Settings) -> dict:
        (result,) = segment(self.logits, self.masks, [self.frame], settings)
        return self._finished(result)

    @torch.no_grad()
    def plain(self) -> dict:
        """The published formula."""
        return self._finished(
            segment_plainly(self.logits[0], self.masks[0], self.frame, self.settings)
        )

    def _finished(self, result):
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return result

    def compare(self) -> dict[str, float]:
        """Share of pixels (or scores) at which both agree.

        Raises:
            ParityError: it is less than 99.99 %, or the segments are others.
        """
        ours, published, plain = self.ours(), self.scores(), self.plain()
        found = {}
        if "panoptic_seg" in ours:
            (ids, segments), (wanted, wanted_segments) = ours["panoptic_seg"], plain["panoptic_seg"]
            if segments != wanted_segments or not segments:
                raise parity.ParityError(
                    f"{len(segments)} panoptic segments and {len(wanted_segments)}, not the same"
                )
            found["panoptic ids"] = parity.agreement(ids, wanted)
        if "instances" in ours:
            found |= _compare_instances(ours["instances"], plain["instances"])
            _compare_instances(published["instances"], plain["instances"])
        if "sem_seg" in ours:
            difference = parity.relative_difference(published["sem_seg"], plain["sem_seg"])
            parity.require({"semantic scores": difference}, parity.TOLERANCE)
            found["semantic classes"] = parity.agreement(
                ours["sem_seg"].argmax(0), plain["sem_seg"].argmax(0)
            )
        wrong = {name: share for name, share in found.items() if share < parity.MAP_AGREEMENT}
        if wrong:
            raise parity.ParityError(f"agreement of only {wrong}")
        return found


def _compare_instances(ours, plain) -> dict[str, float]:
    difference = parity.relative_difference(ours.scores, plain["scores"])
    parity.require({"instance scores": difference}, SCORE_TOLERANCE)
    # Instances with equal scores may change places; those that differ in score may not.
    apart = plain["scores"].diff().abs() > SCORE_TOLERANCE * plain["scores"][:-1]
    lone = torch.ones_like(plain["scores"], dtype=torch.bool)
    lone[1:] &= apart
    lone[:-1] &= apart
    return {
        "instance classes": parity.agreement(ours.pred_classes[lone], plain["classes"][lone]),
        "instance masks": parity.agreement(ours.pred_masks[lone] > 0, plain["masks"][lone]),
    }


def in_transformers(subject: PostProcessing) -> Callable | None:
    """The same tasks by transformers' image processor; None where it is not installed."""
    try:
        from transformers import Mask2FormerImageProcessor
    except ImportError:
        return None
    processor = Mask2FormerImageProcessor()
    outputs = SimpleNamespace(
        class_queries_logits=subject.logits, masks_queries_logits=subject.masks
    )
    settings, sizes = subject.settings, [subject.frame.output]
    stuff = set(range(subject.classes)) - settings.things

    @torch.no_grad()
    def call() -> None:
        if settings.panoptic:
            processor.post_process_panoptic_segmentation(
                outputs,
                threshold=settings.object_mask_threshold,
                overlap_mask_area_threshold=settings.overlap_threshold,
                label_ids_to_fuse=stuff,
                target_sizes=sizes,
            )
        if settings.instance:
            processor.post_process_instance_segmentation(
                outputs, threshold=0.0, target_sizes=sizes, return_binary_maps=True
            )
        if settings.semantic:
            processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        if subject.device.startswith("cuda"):
            torch.cuda.synchronize()

    return call
