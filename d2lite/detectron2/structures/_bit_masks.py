"""BitMasks: objects as full-image bitmaps; ROIMasks: objects as small maps inside boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torchvision.ops import roi_align

from detectron2.structures._polygon_masks import PolygonMasks, polygons_to_bitmask
from detectron2.structures.boxes import Boxes


class BitMasks:
    """N objects as bool [N, H, W]."""

    def __init__(self, tensor: torch.Tensor | np.ndarray) -> None:
        """
        Args:
            tensor: [N, H, W]; converted to bool, anything but a tensor goes to the CPU.

        Raises:
            AssertionError: another number of dimensions.
        """
        if isinstance(tensor, torch.Tensor):
            tensor = tensor.to(torch.bool)
        else:
            tensor = torch.as_tensor(tensor, dtype=torch.bool, device=torch.device("cpu"))
        if tensor.dim() != 3:
            raise AssertionError(f"BitMasks need a tensor [N, H, W], not {list(tensor.shape)}")
        self.tensor = tensor
        self.image_size = (int(tensor.shape[1]), int(tensor.shape[2]))

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: int | slice | torch.Tensor) -> BitMasks:
        """Select objects; an int gives one object in BitMasks of length 1."""
        if isinstance(item, int):
            return BitMasks(self.tensor[item].unsqueeze(0))
        selected = self.tensor[item]
        if selected.dim() != 3:
            raise AssertionError(
                f"Indexing on BitMasks with {item} returns a tensor with shape "
                f"{list(selected.shape)}!"
            )
        return BitMasks(selected)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"

    def nonempty(self) -> torch.Tensor:
        """bool [N]: the object has at least one pixel."""
        return self.tensor.flatten(1).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes on the CPU, right and bottom edge exclusive; zeros for empty masks."""
        count, (height, width) = len(self), self.image_size
        if self.tensor.numel() == 0:
            return Boxes(torch.zeros(count, 4))
        columns = self.tensor.any(dim=1)  # [N, W]
        rows = self.tensor.any(dim=2)  # [N, H]
        # argmax of a 0/1 vector is its first 1; of the reversed vector, the last from the end
        left, top = columns.byte().argmax(dim=1), rows.byte().argmax(dim=1)
        right = width - columns.flip(1).byte().argmax(dim=1)
        bottom = height - rows.flip(1).byte().argmax(dim=1)
        boxes = torch.stack((left, top, right, bottom), dim=1)
        boxes = boxes * columns.any(dim=1, keepdim=True)
        return Boxes(boxes.to(device="cpu", dtype=torch.float32))

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Crop the i-th mask by the i-th box [N, 4]: bool [N, mask_size, mask_size].

        Sampled by ROIAlign (aligned) and cut at 0.5, as Mask R-CNN's targets are.
        """
        if len(boxes) != len(self):
            raise AssertionError(f"{len(boxes)} boxes for {len(self)} masks")
        device = self.tensor.device
        index = torch.arange(len(boxes), device=device, dtype=boxes.dtype)[:, None]
        rois = torch.cat((index, boxes.to(device)), dim=1)
        crops = roi_align(
            self.tensor[:, None].float(),
            rois.float(),
            (mask_size, mask_size),
            spatial_scale=1.0,
            sampling_ratio=0,
            aligned=True,
        )
        return crops.squeeze(1) >= 0.5

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Rasterise polygons onto an image of (height, width)."""
        if isinstance(polygon_masks, PolygonMasks):
            polygon_masks = polygon_masks.polygons
        masks = [polygons_to_bitmask(polygons, height, width) for polygons in polygon_masks]
        if not masks:
            return BitMasks(torch.empty(0, height, width, dtype=torch.bool))
        return BitMasks(torch.from_numpy(np.stack(masks)))

    @staticmethod
    def from_roi_masks(roi_masks: ROIMasks, height: int, width: int) -> BitMasks:
        """Unsupported as in detectron2: a ROIMasks has no boxes; see ``ROIMasks.to_bitmasks``."""
        raise NotImplementedError("Use ROIMasks.to_bitmasks(boxes, height, width) instead")

    @staticmethod
    def cat(bitmasks_list: list[BitMasks]) -> BitMasks:
        """Concatenate a non-empty list of masks of one image size."""
        if not bitmasks_list:
            raise AssertionError("BitMasks.cat needs a non-empty list")
        return type(bitmasks_list[0])(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


class ROIMasks:
    """N objects as soft maps [N, M, M], each relative to a box that is kept elsewhere."""

    def __init__(self, tensor: torch.Tensor) -> None:
        if tensor.dim() != 3:
            raise ValueError(f"ROIMasks need a tensor [N, M, M], not {list(tensor.shape)}")
        self.tensor = tensor

    def to(self, *args: Any, **kwargs: Any) -> ROIMasks:
        return ROIMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, item: slice | torch.Tensor) -> ROIMasks:
        selected = self.tensor[item]
        if selected.dim() != 3:
            raise ValueError(f"Indexing on ROIMasks with {item} failed to return [N, M, M]")
        return ROIMasks(selected)

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)})"

    def to_bitmasks(
        self, boxes: Boxes | torch.Tensor, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Paste the maps at their boxes into an image of (height, width); cut at the threshold."""
        from detectron2.layers.mask_ops import paste_masks_in_image  # layers import no structures

        pasted = paste_masks_in_image(self.tensor, boxes, (height, width), threshold=threshold)
        return BitMasks(pasted)


__all__ = ["BitMasks", "ROIMasks"]
