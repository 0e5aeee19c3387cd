"""Ground truth of a batch, kept as bytes until it is looked at."""

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedTargets(list):
    """The published targets (a list of dicts), plus all of their segments in one tensor each.

    Args:
        targets: per image ``labels`` int64 [n] and ``masks`` [n, H, W] (bool, or any type whose
            non-zero values mean foreground; floating point masks stay soft).

    Attributes:
        labels: int64 [G], the segments of image 0, then those of image 1, ...
        masks: bool, uint8 or floating point [G, 1 + H + 1, 1 + W + 1]: with a border of zeros, so
            that :func:`~.point_sampling.sample_masks` need not look where an image ends. H and W
            are the largest of the batch; smaller masks are zero padded on the right and bottom.
        sizes: (height, width) of the masks of each image.
        offsets: for each image the row of its first segment.
        counts: int64 [B] on the CPU, segments of each image.
        image: int64 [G] on the device, the image of each segment.
        extent: float32 [B, 2] on the device, ``sizes`` as a tensor.
        room: empty tensor of as many rows as there will be pairs, see :meth:`complete`.
    """

    def __init__(self, targets: list[dict]) -> None:
        super().__init__(targets)
        masks = [_compact(target["masks"]) for target in targets]
        self.labels = torch.cat([target["labels"] for target in targets])
        self.sizes = [tuple(m.shape[-2:]) for m in masks]
        self.offsets = [sum(map(len, masks[:i])) for i in range(len(masks))]
        height, width = (max(side) for side in zip(*self.sizes))
        self.masks = torch.cat(
            [F.pad(m, (1, width + 1 - m.shape[-1], 1, height + 1 - m.shape[-2])) for m in masks]
        )

    def complete(self, queries: int) -> "PackedTargets":
        """Adds what only ``torch.compile`` needs: numbers of segments as data and as sizes.

        Args:
            queries: Q, of which each is matched with one segment at most.
        """
        device, counts = self.labels.device, [len(target["labels"]) for target in self]
        self.counts = torch.tensor(counts)
        images = torch.arange(len(counts)).repeat_interleave(self.counts)
        self.image = images.to(device, non_blocking=True)
        self.extent = torch.tensor(self.sizes).float().to(device, non_blocking=True)
        self.room = torch.empty(sum(min(n, queries) for n in counts))
        return self

    @classmethod
    def of(cls, targets: list[dict]) -> "PackedTargets":
        return targets if isinstance(targets, cls) else cls(targets)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that all masks are padded to, without the border."""
        return self.masks.shape[-2] - 2, self.masks.shape[-1] - 2

    def masks_of(self, image: int) -> Tensor:
        """The masks of one image, with the border and padding."""
        start = self.offsets[image]
        return self.masks[start : start + len(self[image]["labels"])]


def _compact(masks: Tensor) -> Tensor:
    if masks.is_floating_point() or masks.dtype in (torch.bool, torch.uint8):
        return masks
    return masks.bool()
