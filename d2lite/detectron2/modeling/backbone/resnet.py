"""ResNet as a backbone, and the function that reads its options from a config.

Depth 18 to 152, with parameter names of the published checkpoints (``stem.conv1``,
``res2.0.conv1``, ``res2.0.conv1.norm``, ``res2.0.shortcut``, ...).
"""

from collections.abc import Iterable

import numpy as np
from torch import Tensor, nn

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm

from .backbone import Backbone
from .build import BACKBONE_REGISTRY
from .resnet_blocks import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock

__all__ = [
    "BACKBONE_REGISTRY",
    "Backbone",
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "CNNBlockBase",
    "Conv2d",
    "DeformBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_resnet_backbone",
    "get_norm",
    "make_stage",
]

ResNetBlockBase = CNNBlockBase  # its name before detectron2 0.4

# Blocks in res2..res5 by depth: table 1 of the ResNet paper.
BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(Backbone):
    """A stem and up to four stages of residual blocks, ``res2`` to ``res5``.

    Args:
        stem: with attributes ``out_channels`` and ``stride``.
        stages: one list of blocks per stage; stages after the last requested output are not built.
        num_classes: adds average pooling and a linear classifier, output name ``linear``.
        out_features: names among ``stem``, ``res2``, ..., ``linear``; default: the last one.
        freeze_at: see :meth:`freeze`.

    Raises:
        AssertionError: an output name that does not exist.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: list[list[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Iterable[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        self._out_feature_strides = {"stem": stem.stride}
        self._out_feature_channels = {"stem": stem.out_channels}
        self.stage_names, self.stages = [], []

        if out_features is not None:
            # The requested order is kept: it is the order of output_shape().
            out_features = list(out_features)
            if "linear" not in out_features:
                numbers = {f"res{i + 2}": i + 1 for i in range(len(stages))}
                stages = stages[: max((numbers.get(name, 0) for name in out_features), default=0)]

        stride, channels = stem.stride, stem.out_channels
        for i, blocks in enumerate(stages):
            if not blocks:
                raise AssertionError(f"stage res{i + 2} has no blocks")
            name = f"res{i + 2}"
            stage = nn.Sequential(*blocks)
            self.add_module(name, stage)
            self.stage_names.append(name)
            self.stages.append(stage)
            stride *= int(np.prod([block.stride for block in blocks]))
            channels = blocks[-1].out_channels
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = channels
        self.stage_names = tuple(self.stage_names)

        last = self.stage_names[-1] if self.stage_names else "stem"
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            # Section 5.1 of Goyal et al. 2017 (arXiv 1706.02677).
            nn.init.normal_(self.linear.weight, std=0.01)
            last = "linear"

        self._out_features = out_features if out_features is not None else [last]
        if not self._out_features:
            raise AssertionError("ResNet needs at least one output feature")
        known = ["stem", *self.stage_names] + (["linear"] if num_classes is not None else [])
        for name in self._out_features:
            if name not in known:
                raise AssertionError(
                    f"ResNet has no output '{name}' (MODEL.RESNETS.OUT_FEATURES); "
                    f"available: {', '.join(known)}"
                )
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Encodes ``[B, C, H, W]`` images.

        Returns:
            the requested outputs: ``stem`` and ``res2`` at a quarter of the resolution, ``res3``
            an eighth, ``res4`` 1/16, ``res5`` 1/32 (undilated); ``linear`` is ``[B, num_classes]``.
        """
        if x.dim() != 4:
            raise AssertionError(f"ResNet takes [B, C, H, W] images, got shape {tuple(x.shape)}")
        outputs = {}
        x = self.stem(x)
        if "stem" in self._out_features:
            outputs["stem"] = x
        for name, stage in zip(self.stage_names, self.stages):
            x = stage(x)
            if name in self._out_features:
                outputs[name] = x
        if self.num_classes is not None and "linear" in self._out_features:
            outputs["linear"] = self.linear(self.avgpool(x).flatten(1))
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of the requested feature maps."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
            if name != "linear"
        }

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Freezes the first parts: 0 none, 1 the stem, k the stem and the stages up to ``res<k>``.

        Frozen batch norms become ``FrozenBatchNorm2d``. Returns self.
        """
        if freeze_at >= 1:
            self.stem.freeze()
        for number, stage in enumerate(self.stages, start=2):
            if freeze_at >= number:
                for block in stage.children():
                    block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs,
    ) -> list[CNNBlockBase]:
        """Makes the blocks of one stage.

        Args:
            in_channels: of the first block; the others take ``out_channels``.
            kwargs: for every block; a name ending in ``_per_block`` is a list with one value per
                block, handed over under the name without that ending.

        Raises:
            AssertionError: a list of another length, or a value given both ways.
        """
        per_block = {k: v for k, v in kwargs.items() if k.endswith("_per_block")}
        shared = {k: v for k, v in kwargs.items() if k not in per_block}
        for name, values in per_block.items():
            short = name.removesuffix("_per_block")
            if len(values) != num_blocks:
                raise AssertionError(
                    f"'{name}' of make_stage must have {num_blocks} values, got {len(values)}"
                )
            if short in shared:
                raise AssertionError(f"make_stage got both '{short}' and '{name}'")
        blocks = []
        for i in range(num_blocks):
            own = {k.removesuffix("_per_block"): v[i] for k, v in per_block.items()}
            channels = in_channels if i == 0 else out_channels
            blocks.append(block_class(channels, out_channels, **shared, **own))
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs
    ) -> list[list[CNNBlockBase]]:
        """The four stages of the paper's ResNet-``depth`` (18, 34, 50, 101, 152)."""
        bottleneck = depth >= 50
        if block_class is None:
            block_class = BottleneckBlock if bottleneck else BasicBlock
        widths = (256, 512, 1024, 2048) if bottleneck else (64, 128, 256, 512)
        stages, in_channels = [], 64
        for i, (blocks, width) in enumerate(zip(BLOCKS_PER_STAGE[depth], widths)):
            own = {"bottleneck_channels": width // 4} if bottleneck else {}
            stages.append(
                ResNet.make_stage(
                    block_class,
                    blocks,
                    stride_per_block=[1 if i == 0 else 2] + [1] * (blocks - 1),
                    in_channels=in_channels,
                    out_channels=width,
                    **own,
                    **kwargs,
                )
            )
            in_channels = width
        return stages


def make_stage(*args, **kwargs) -> list[CNNBlockBase]:
    """:meth:`ResNet.make_stage` under its older name."""
    return ResNet.make_stage(*args, **kwargs)


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """A ResNet from ``cfg.MODEL.RESNETS`` and ``cfg.MODEL.BACKBONE.FREEZE_AT``.

    Raises:
        KeyError: a DEPTH other than 18, 34, 50, 101, 152.
        AssertionError: options that do not go together; the message names the keys.
    """
    options = cfg.MODEL.RESNETS
    stem = BasicStem(
        in_channels=input_shape.channels, out_channels=options.STEM_OUT_CHANNELS, norm=options.NORM
    )
    return ResNet(
        stem,
        build_stages(cfg, res4_dilation=1, res5_dilation=options.RES5_DILATION),
        out_features=options.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


def build_stages(
    cfg: CfgNode, *, res4_dilation: int = 1, res5_dilation: int = 1
) -> list[list[CNNBlockBase]]:
    """The stages that ``cfg.MODEL.RESNETS`` asks for, up to its last entry of OUT_FEATURES."""
    options = cfg.MODEL.RESNETS
    depth = options.DEPTH
    _check_options(options, depth, res5_dilation)
    numbers = {f"res{i}": i for i in range(2, 6)}
    # Anything unknown is reported by ResNet's constructor, which knows all names.
    last_stage = max((numbers.get(name, 0) for name in options.OUT_FEATURES), default=0)

    stages = []
    in_channels, out_channels = options.STEM_OUT_CHANNELS, options.RES2_OUT_CHANNELS
    bottleneck_channels = options.NUM_GROUPS * options.WIDTH_PER_GROUP
    for i, number in enumerate(range(2, last_stage + 1)):
        dilation = {4: res4_dilation, 5: res5_dilation}.get(number, 1)
        first_stride = 1 if number == 2 or (number >= 4 and dilation > 1) else 2
        blocks = BLOCKS_PER_STAGE[depth][i]
        kwargs = {
            "stride_per_block": [first_stride] + [1] * (blocks - 1),
            "in_channels": in_channels,
            "out_channels": out_channels,
            "norm": options.NORM,
        }
        block_class = BasicBlock
        if depth >= 50:
            block_class = BottleneckBlock
            kwargs |= {
                "bottleneck_channels": bottleneck_channels,
                "stride_in_1x1": options.STRIDE_IN_1X1,
                "dilation": dilation,
                "num_groups": options.NUM_GROUPS,
            }
            if options.DEFORM_ON_PER_STAGE[i]:
                block_class = DeformBottleneckBlock
                kwargs |= {
                    "deform_modulated": options.DEFORM_MODULATED,
                    "deform_num_groups": options.DEFORM_NUM_GROUPS,
                }
        stages.append(ResNet.make_stage(block_class, blocks, **kwargs))
        in_channels, out_channels = out_channels, out_channels * 2
        bottleneck_channels *= 2
    return stages


def _check_options(options: CfgNode, depth: int, res5_dilation: int) -> None:
    """Refuses combinations that the block types cannot express."""
    if depth not in BLOCKS_PER_STAGE:
        raise KeyError(f"MODEL.RESNETS.DEPTH {depth} is not one of {sorted(BLOCKS_PER_STAGE)}")
    if res5_dilation not in (1, 2, 4):
        raise AssertionError(f"MODEL.RESNETS.RES5_DILATION must be 1, 2 or 4, got {res5_dilation}")
    if depth < 50:
        wrong = {
            "RES2_OUT_CHANNELS": options.RES2_OUT_CHANNELS != 64,
            "DEFORM_ON_PER_STAGE": any(options.DEFORM_ON_PER_STAGE),
            "RES5_DILATION": res5_dilation != 1,
            "NUM_GROUPS": options.NUM_GROUPS != 1,
        }
        for key, is_wrong in wrong.items():
            if is_wrong:
                needed = {"RES2_OUT_CHANNELS": 64, "DEFORM_ON_PER_STAGE": "all False"}.get(key, 1)
                raise AssertionError(
                    f"MODEL.RESNETS.DEPTH {depth} needs MODEL.RESNETS.{key} = {needed}"
                )


__getattr__ = missing_getattr(__name__)
