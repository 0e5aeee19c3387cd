"""The adapter around a plain transformer; subclasses bring the transformer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.layers import get_norm
from detectron2.modeling import Backbone
from mask2former.ops import checkpoint

from ...errors import BackboneError
from ...pixel_decoder.ms_deform_attn import MSDeformAttn
from ..padding import crop_to_image, pad_to_multiple
from .interaction import Grid, InteractionBlock, split_levels
from .spatial_prior import SpatialPriorModule

#: Side of a patch in pixels: the adapter's maps have strides 8, 16 and 32.
PATCH = 16
_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class ViTAdapter(Backbone):
    """Turns a plain transformer into a backbone with maps of strides 4, 8, 16 and 32 (figure 4).

    A subclass builds its encoder, calls ``add_adapter`` and implements ``embed`` and ``encode``.
    """

    def add_adapter(
        self,
        embed_dim: int,
        depth: int,
        *,
        conv_inplane: int = 64,
        n_points: int = 4,
        deform_num_heads: int = 6,
        deform_ratio: float = 1.0,
        init_values: float = 0.0,
        with_cffn: bool = True,
        cffn_ratio: float = 0.25,
        add_vit_feature: bool = True,
        interaction_indexes: Sequence[Sequence[int]] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm: str = "SyncBN",
        in_chans: int = 3,
        with_cp: bool = False,
        freeze_encoder: bool = False,
    ) -> None:
        """
        Args:
            embed_dim: channels C of encoder and features.
            depth: number of the encoder's blocks.
            conv_inplane: channels of the spatial prior's stem.
            n_points, deform_num_heads, deform_ratio: of the deformable attention.
            init_values: of the injectors' scale.
            with_cffn, cffn_ratio: the extractors' ConvFFN.
            add_vit_feature: add the encoder's last map, resized, to every feature.
            interaction_indexes: first and last block of each group; None or empty: four equal ones.
            drop_path_rate: stochastic depth in the extractors.
            norm: of the spatial prior and the outputs: SyncBN, BN or FrozenBN.
            with_cp: recompute blocks, injectors and extractors in the backward pass.
            freeze_encoder: the encoder neither learns nor drops.

        Raises:
            BackboneError: groups of blocks that do not follow one another from 0 to ``depth - 1``,
                heads that do not divide their channels, no norm.
        """
        values = int(embed_dim * deform_ratio)
        if values < 1 or embed_dim % deform_num_heads or values % deform_num_heads:
            raise BackboneError(
                f"MODEL.VIT_ADAPTER.DEFORM_NUM_HEADS ({deform_num_heads}) must divide the "
                f"encoder's {embed_dim} channels and the {values} that "
                f"MODEL.VIT_ADAPTER.DEFORM_RATIO {deform_ratio} leaves of them"
            )
        if not norm:
            raise BackboneError("MODEL.VIT_ADAPTER.NORM is empty; choose SyncBN, BN or FrozenBN")
        self.interaction_indexes = _groups(interaction_indexes, depth)
        self.add_vit_feature = add_vit_feature
        self.with_cp = with_cp
        self._encoder_modules: list[nn.Module | nn.Parameter] = []
        if freeze_encoder:
            self._freeze_encoder()

        self.level_embed = nn.Parameter(torch.zeros(3, embed_dim))
        self.spm = SpatialPriorModule(conv_inplane, embed_dim, norm, in_chans)
        self.interactions = nn.Sequential(
            *[
                InteractionBlock(
                    embed_dim,
                    deform_num_heads,
                    n_points,
                    deform_ratio=deform_ratio,
                    init_values=init_values,
                    with_cffn=with_cffn,
                    cffn_ratio=cffn_ratio,
                    drop=drop_rate,
                    drop_path=drop_path_rate,
                    extra_extractor=i == len(self.interaction_indexes) - 1,
                )
                for i in range(len(self.interaction_indexes))
            ]
        )
        self.up = nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2)
        for i in range(1, 5):
            self.add_module(f"norm{i}", get_norm(norm, embed_dim))
        self._initialise()
        self._out_features = list(_STRIDES)
        self._out_feature_strides = dict(_STRIDES)
        self._out_feature_channels = dict.fromkeys(_STRIDES, embed_dim)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor | None, object]:
        """Images ``[B, 3, H, W]`` to patches ``[B, N, C]``, other tokens ``[B, P, C]``, context.

        The context is whatever ``encode`` needs to know (position encodings).
        """
        raise NotImplementedError

    def encode(
        self, x: Tensor, others: Tensor | None, blocks: range, context: object
    ) -> tuple[Tensor, Tensor | None]:
        """Patches ``[B, N, C]`` and other tokens ``[B, P, C]`` through some of the blocks."""
        raise NotImplementedError

    def forward_maps(self, images: Tensor) -> list[Tensor]:
        """Images ``[B, 3, H, W]``, sides multiples of 32, to maps ``[B, C, H/4, W/4]`` ... /32."""
        grid = Grid(images.shape[2] // PATCH, images.shape[3] // PATCH)
        c1, *levels = self.spm(images)
        c = torch.cat(
            [
                level.flatten(2).transpose(1, 2) + embedding
                for level, embedding in zip(levels, self.level_embed)
            ],
            dim=1,
        )  # [B, M, C]
        x, others, context = self.embed(images)  # [B, N, C]

        for (first, last), interaction in zip(self.interaction_indexes, self.interactions):
            x = self.recompute(interaction.injector, x, c, grid)
            x, others = self.encode(x, others, range(first, last + 1), context)
            for extractor in interaction.extractors():
                c = self.recompute(extractor, c, x, grid)

        c2, c3, c4 = split_levels(c, grid)
        c1 = self.up(c2) + c1
        maps = [c1, c2, c3, c4]
        if self.add_vit_feature:
            x = x.transpose(1, 2).unflatten(2, (grid.height, grid.width))
            maps = [level + _resized(x, factor) for level, factor in zip(maps, (4, 2, 1, 0.5))]
        return [getattr(self, f"norm{i}")(level) for i, level in enumerate(maps, start=1)]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """
        Args:
            images: ``[B, 3, H, W]``, normalised; sides that are no multiples of 32 are padded.

        Returns:
            ``res2`` ... ``res5``: ``[B, C, H/4, W/4]`` ... ``[B, C, H/32, W/32]``, rounded up.
        """
        height, width = images.shape[-2:]
        maps = self.forward_maps(pad_to_multiple(images, self.size_divisibility))
        return {
            name: crop_to_image(feature, height, width, stride)
            for (name, stride), feature in zip(_STRIDES.items(), maps)
        }

    def recompute(self, module: Callable, *arguments) -> Tensor:
        """Calls ``module``, in training without keeping its activations if so configured."""
        if self.with_cp and self.training:
            return checkpoint(module, *arguments)
        return module(*arguments)

    def train(self, mode: bool = True) -> ViTAdapter:
        """As always, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        for module in self._encoder_modules:
            nn.Module.train(module, False)
        return self

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride."""
        return 32

    def _freeze_encoder(self) -> None:
        # Called before the adapter's own parts exist: all there is is the encoder's.
        self.requires_grad_(False)
        self._encoder_modules = list(self.children())

    def _initialise(self) -> None:
        """The published initialisation of the adapter's own layers."""
        for part in (self.spm, self.interactions, self.up):
            part.apply(_initialise_layer)
        for module in self.modules():
            if isinstance(module, MSDeformAttn):
                module.reset_parameters()
        nn.init.normal_(self.level_embed)


def _groups(indexes: Sequence[Sequence[int]] | None, depth: int) -> list[tuple[int, int]]:
    if not indexes:
        if depth < 4:
            raise BackboneError(
                f"an encoder of {depth} blocks cannot be cut in four: give "
                "MODEL.VIT_ADAPTER.INTERACTION_INDEXES"
            )
        borders = [round(i * depth / 4) for i in range(5)]
        return [(first, end - 1) for first, end in pairwise(borders)]
    # A number is no group.
    groups = [(group[0], group[-1]) for group in indexes if isinstance(group, Sequence) and group]
    blocks = [block for first, last in groups for block in range(first, last + 1)]
    if len(groups) < len(indexes) or blocks != list(range(depth)):
        raise BackboneError(
            f"MODEL.VIT_ADAPTER.INTERACTION_INDEXES {list(indexes)} must cut "
            f"the {depth} blocks of the encoder into groups [first, last]"
        )
    return groups


def _resized(x: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _initialise_layer(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        kernel = module.kernel_size[0] * module.kernel_size[1]
        fan_out = kernel * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
