"""ResNet as DeepLab uses it: a stem of three small convolutions, dilated last stages."""

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import (
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
)

__all__ = ["DeepLabStem", "build_resnet_deeplab_backbone"]

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class DeepLabStem(CNNBlockBase):
    """Three 3x3 convolutions (the first with stride 2) and max pooling: stride 4.

    Args:
        in_channels: of the image.
        out_channels: of the output; the first two convolutions have half of it.
        norm: name for ``get_norm``.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 128, norm: str = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.in_channels = in_channels
        half = out_channels // 2
        self.conv1 = self._conv(in_channels, half, 2, norm)
        self.conv2 = self._conv(half, half, 1, norm)
        self.conv3 = self._conv(half, out_channels, 1, norm)

    @staticmethod
    def _conv(in_channels: int, out_channels: int, stride: int, norm: str) -> Conv2d:
        conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size=3,
            stride=stride,
            padding=1,
            bias=False,
            norm=get_norm(norm, out_channels),
        )
        weight_init.c2_msra_fill(conv)
        return conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, out_channels, H/4, W/4]."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


@BACKBONE_REGISTRY.register()
def build_resnet_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """ResNet-50/101/152 by MODEL.RESNETS, with STEM_TYPE, RES4_DILATION and RES5_MULTI_GRID.

    Raises:
        ValueError: another depth or stem.
    """
    options = cfg.MODEL.RESNETS
    if options.DEPTH not in _BLOCKS:
        raise ValueError(
            f"build_resnet_deeplab_backbone has no MODEL.RESNETS.DEPTH {options.DEPTH}; "
            f"known: {sorted(_BLOCKS)}"
        )
    stems = {"basic": BasicStem, "deeplab": DeepLabStem}
    if options.STEM_TYPE not in stems:
        raise ValueError(
            f"Unknown stem type: MODEL.RESNETS.STEM_TYPE '{options.STEM_TYPE}'; "
            f"known: {', '.join(stems)}"
        )
    stem = stems[options.STEM_TYPE](
        in_channels=input_shape.channels,
        out_channels=options.STEM_OUT_CHANNELS,
        norm=options.NORM,
    )
    last = max(int(name.removeprefix("res")) for name in options.OUT_FEATURES)
    return ResNet(
        stem,
        [_make_stage(options, number) for number in range(2, last + 1)],
        out_features=options.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


def _make_stage(options: CfgNode, number: int) -> list[CNNBlockBase]:
    """Blocks of the stage ``res<number>``."""
    wider = 2 ** (number - 2)
    out_channels = options.RES2_OUT_CHANNELS * wider
    count = _BLOCKS[options.DEPTH][number - 2]
    dilation = {4: options.RES4_DILATION, 5: options.RES5_DILATION}.get(number, 1)
    # A dilated stage keeps the resolution.
    first_stride = 1 if number == 2 or dilation > 1 else 2
    dilations = [dilation] * count
    if number == 5:
        dilations = [dilation * grid for grid in options.RES5_MULTI_GRID]
    kwargs = {
        "stride_per_block": [first_stride] + [1] * (count - 1),
        "in_channels": options.STEM_OUT_CHANNELS if number == 2 else out_channels // 2,
        "out_channels": out_channels,
        "norm": options.NORM,
        "bottleneck_channels": options.NUM_GROUPS * options.WIDTH_PER_GROUP * wider,
        "stride_in_1x1": options.STRIDE_IN_1X1,
        "num_groups": options.NUM_GROUPS,
        "dilation_per_block": dilations,
    }
    block_class = BottleneckBlock
    if options.DEFORM_ON_PER_STAGE[number - 2]:
        block_class = DeformBottleneckBlock
        kwargs |= {
            "deform_modulated": options.DEFORM_MODULATED,
            "deform_num_groups": options.DEFORM_NUM_GROUPS,
        }
    return ResNet.make_stage(block_class, count, **kwargs)


__getattr__ = missing_getattr(__name__)
