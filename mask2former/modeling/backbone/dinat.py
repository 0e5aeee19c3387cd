"""DiNAT (Hassani and Shi, 2022) as a detectron2 backbone, with the published names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, ShapeSpec
from mask2former.ops import checkpoint

from ..errors import BackboneError
from .dinat_blocks import ConvDownsampler, ConvTokenizer, NATLayer, NeighborhoodAttention2D
from .stages import StageFeatures

__all__ = ["D2DiNAT", "DiNAT", "NATBlock", "NATLayer", "NeighborhoodAttention2D"]


class NATBlock(nn.Module):
    """One stage: layers with the dilations given, then maybe a downsampling."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        dilations: Sequence[int],
        drop_path: Sequence[float],
        downsample: bool,
        use_checkpoint: bool = False,
        **layer_options,
    ) -> None:
        """
        Args:
            dilations: of each layer; their number is the depth of the stage.
            drop_path: stochastic depth rate of each layer.
            downsample: whether the stage ends with a ``ConvDownsampler``.
            use_checkpoint: recompute the layers in the backward pass instead of keeping them.
            layer_options: the remaining keywords of ``NATLayer``.
        """
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            NATLayer(dim, num_heads, dilation=dilation, drop_path=rate, **layer_options)
            for dilation, rate in zip(dilations, drop_path)
        )
        self.downsample = ConvDownsampler(dim) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: ``[B, H, W, C]``.

        Returns:
            The stage's output ``[B, H, W, C]`` and the next stage's input,
            ``[B, ceil(H / 2), ceil(W / 2), 2 C]`` (the same tensor in the last stage).
        """
        for block in self.blocks:
            if self.use_checkpoint and self.training:
                x = checkpoint(block, x)
            else:
                x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class DiNAT(nn.Module):
    """Four stages of (dilated) neighbourhood attention at strides 4, 8, 16 and 32."""

    def __init__(
        self,
        *,
        dilations: Sequence[Sequence[int]],
        in_chans: int = 3,
        embed_dim: int = 192,
        depths: Sequence[int] = (3, 4, 18, 5),
        num_heads: Sequence[int] = (6, 12, 24, 48),
        kernel_size: int = 7,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.3,
        layer_scale: float | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        freeze_at: int = 0,
        use_checkpoint: bool = False,
    ) -> None:
        """
        Args:
            dilations: of every layer of every stage, lists as long as ``depths`` says.
            drop_path_rate: stochastic depth rate of the last layer; it grows linearly from 0.
            layer_scale: see ``NATLayer``.
            out_indices: stages whose normed output is returned. Stages after the last of them are
                not built.
            freeze_at: 0 trains everything; 1 freezes the tokenizer; k > 1 also the first k - 1
                stages, as detectron2's ``MODEL.BACKBONE.FREEZE_AT`` in a ResNet.
            use_checkpoint: trade a second forward of the layers for memory.

        Raises:
            BackboneError: if the lists differ in length, or a stage is unknown.
        """
        super().__init__()
        stages = len(depths)
        if len(num_heads) != stages:
            raise BackboneError(
                f"MODEL.DINAT.DEPTHS {list(depths)} and MODEL.DINAT.NUM_HEADS {list(num_heads)} "
                "must name the same number of stages"
            )
        _check_dilations(dilations, depths)
        if not out_indices or not all(0 <= i < stages for i in out_indices):
            raise BackboneError(f"out_indices {list(out_indices)} not within {stages} stages")
        if not 0 <= freeze_at <= stages + 1:
            raise BackboneError(
                f"MODEL.DINAT.FREEZE_AT must be from 0 to {stages + 1}, got {freeze_at}"
            )
        self.out_indices = tuple(sorted(out_indices))
        self.freeze_at = freeze_at
        self.num_features = [embed_dim * 2**i for i in range(stages)]

        self.patch_embed = ConvTokenizer(in_chans, embed_dim)
        self.pos_drop = nn.Dropout(drop_rate)
        layers = sum(depths)
        drop_path = [drop_path_rate * i / max(layers - 1, 1) for i in range(layers)]
        self.levels = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            first = sum(depths[:i])
            self.levels.append(
                NATBlock(
                    self.num_features[i],
                    num_heads[i],
                    dilations=dilations[i],
                    drop_path=drop_path[first : first + depths[i]],
                    downsample=i < self.out_indices[-1],
                    use_checkpoint=use_checkpoint,
                    kernel_size=kernel_size,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    layer_scale=layer_scale,
                )
            )
        for i in self.out_indices:
            self.add_module(f"norm{i}", nn.LayerNorm(self.num_features[i]))
        self.apply(_initialise)
        self._freeze()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: images, ``[B, in_chans, H, W]``, of any size.

        Returns:
            ``res2`` ... ``res5`` of the requested stages, stage i with shape
            ``[B, C * 2^i, H / 2^(i+2), W / 2^(i+2)]`` (rounded up), channels last in memory.
        """
        x = self.pos_drop(self.patch_embed(x))  # [B, H/4, W/4, C]
        outputs = {}
        for i, level in enumerate(self.levels):
            stage, x = level(x)  # [B, H/2^(i+2), W/2^(i+2), C * 2^i]
            if i in self.out_indices:
                stage = getattr(self, f"norm{i}")(stage)
                outputs[f"res{i + 2}"] = stage.permute(0, 3, 1, 2)
        return outputs

    def train(self, mode: bool = True) -> DiNAT:
        """As always, but frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.freeze_at < 1:
            return
        for module in (self.patch_embed, self.pos_drop, *self.levels[: self.freeze_at - 1]):
            nn.Module.train(module, False)
            module.requires_grad_(False)


def _check_dilations(dilations: Sequence[Sequence[int]] | None, depths: Sequence[int]) -> None:
    if dilations is None:
        raise BackboneError(
            "MODEL.DINAT.DILATIONS is not set. It has a list per stage with a dilation per layer: "
            f"for DEPTHS {list(depths)}, lists of {', '.join(map(str, depths))} numbers; all 1 for "
            "NAT (the published DiNAT configs show DiNAT's)"
        )
    lengths = [len(stage) for stage in dilations]
    if lengths != list(depths):
        raise BackboneError(
            f"MODEL.DINAT.DILATIONS has {lengths} dilations per stage, but MODEL.DINAT.DEPTHS is "
            f"{list(depths)}"
        )


def _initialise(module: nn.Module) -> None:
    """As published: Linear layers from a normal distribution cut off at 2, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@BACKBONE_REGISTRY.register()
class D2DiNAT(StageFeatures, DiNAT, Backbone):
    """``DiNAT`` under ``MODEL.BACKBONE.NAME: D2DiNAT``."""

    section = "MODEL.DINAT"

    @configurable
    def __init__(self, *, out_features: Sequence[str], **dinat_options) -> None:
        """
        Args:
            out_features: names out of ``res2`` ... ``res5``.
            dinat_options: the keywords of ``DiNAT`` except ``out_indices``.

        Raises:
            BackboneError: for an unknown feature name.
        """
        depths = dinat_options.get("depths", (3, 4, 18, 5))
        indices = self.stage_indices(out_features, len(depths))
        super().__init__(out_indices=indices, **dinat_options)
        self.declare_features(out_features, 4)

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        dinat = cfg.MODEL.DINAT
        return {
            "in_chans": input_shape.channels,
            "embed_dim": dinat.EMBED_DIM,
            "depths": dinat.DEPTHS,
            "num_heads": dinat.NUM_HEADS,
            "kernel_size": dinat.KERNEL_SIZE,
            "dilations": dinat.DILATIONS,
            "mlp_ratio": dinat.MLP_RATIO,
            "qkv_bias": dinat.QKV_BIAS,
            "qk_scale": dinat.QK_SCALE,
            "drop_rate": dinat.DROP_RATE,
            "attn_drop_rate": dinat.ATTN_DROP_RATE,
            "drop_path_rate": dinat.DROP_PATH_RATE,
            "layer_scale": dinat.LAYER_SCALE,
            "freeze_at": dinat.FREEZE_AT,
            "use_checkpoint": dinat.USE_CHECKPOINT,
            "out_features": dinat.OUT_FEATURES,
        }
