"""ROIAlign as a module (He et al., "Mask R-CNN", 2017)."""

import torch
from torch import nn
from torchvision.ops import roi_align

from detectron2._missing import missing_getattr

__all__ = ["ROIAlign"]


class ROIAlign(nn.Module):
    """Bilinear sampling of boxes into maps of one size.

    Args:
        output_size: (height, width).
        spatial_scale: factor from box coordinates to the feature map.
        sampling_ratio: samples per output cell and axis; 0 adapts it to the box.
        aligned: pixel centres at half-integer coordinates (the correct, newer convention).
    """

    def __init__(
        self,
        output_size: tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """input [N, C, H, W], rois [B, 5] (image index, x0, y0, x1, y1) -> [B, C, h, w]"""
        if rois.dim() != 2 or rois.size(1) != 5:
            raise AssertionError(f"ROIAlign needs boxes of shape [B, 5], not {list(rois.shape)}")
        return roi_align(
            input,
            rois.to(dtype=input.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )


__getattr__ = missing_getattr(__name__)
