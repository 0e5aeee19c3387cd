"""What the encoder and the spatial prior exchange: injector, extractor, ConvFFN (section 3.3, 3.4).

Both directions are deformable attention. ``x`` are the encoder's patches ``[B, N, C]`` of a grid at
stride 16, ``c`` the adapter's tokens ``[B, M, C]``: the maps of strides 8, 16 and 32, flattened one
after another. Parameter names are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...pixel_decoder.ms_deform_attn import MSDeformAttn
from ..swin_blocks import DropPath

#: The published code has this epsilon in every layer norm of encoder and adapter.
LayerNorm = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True)
class Grid:
    """Height and width of the encoder's patches; the adapter's maps follow from it."""

    height: int
    width: int

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) at strides 8, 16 and 32."""
        height, width = self.height, self.width
        return (2 * height, 2 * width), (height, width), (height // 2, width // 2)

    def patch_centres(self, like: Tensor) -> Tensor:
        """(x, y) of every patch in [0, 1], ``[1, N, 1, 2]``."""
        return _centres(self.height, self.width, like)[None, :, None]

    def token_centres(self, like: Tensor) -> Tensor:
        """(x, y) of every token of the adapter, ``[1, M, 1, 2]``."""
        return torch.cat([_centres(h, w, like) for h, w in self.levels])[None, :, None]


class Injector(nn.Module):
    """Patches look at the adapter's three maps: ``x + gamma * attention(x, c)`` (equation 1)."""

    def __init__(
        self, dim: int, num_heads: int, n_points: int, ratio: float, init_values: float
    ) -> None:
        """
        Args:
            ratio: width of the attention's values as a share of ``dim``.
            init_values: of ``gamma``; near 0, pretrained features are untouched at first.
        """
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_values)))
        self.query_norm = LayerNorm(dim)
        self.feat_norm = LayerNorm(dim)
        self.attn = MSDeformAttn(dim, 3, num_heads, n_points, ratio=ratio)

    def forward(self, x: Tensor, c: Tensor, grid: Grid) -> Tensor:
        """Patches ``[B, N, C]``, tokens ``[B, M, C]`` -> patches."""
        attended = self.attn(
            self.query_norm(x), grid.patch_centres(x), self.feat_norm(c), grid.levels
        )
        return x + self.gamma * attended


class Extractor(nn.Module):
    """The adapter's tokens look at the patches, then pass a ConvFFN (equations 2 and 3)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        n_points: int,
        ratio: float,
        *,
        with_cffn: bool,
        cffn_ratio: float,
        drop: float,
        drop_path: float,
    ) -> None:
        """
        Args:
            ratio: width of the attention's values as a share of ``dim``.
            with_cffn: whether there is a ConvFFN.
            cffn_ratio: its width as a share of ``dim``.
            drop, drop_path: dropout in, and stochastic depth of, the ConvFFN.
        """
        super().__init__()
        self.query_norm = LayerNorm(dim)
        self.feat_norm = LayerNorm(dim)
        self.attn = MSDeformAttn(dim, 1, num_heads, n_points, ratio=ratio)
        self.ffn = ConvFFN(dim, int(dim * cffn_ratio), drop) if with_cffn else None
        if with_cffn:
            self.ffn_norm = LayerNorm(dim)
            self.drop_path = DropPath(drop_path)

    def forward(self, c: Tensor, x: Tensor, grid: Grid) -> Tensor:
        """Tokens ``[B, M, C]``, patches ``[B, N, C]`` -> tokens."""
        patches = [(grid.height, grid.width)]
        c = c + self.attn(self.query_norm(c), grid.token_centres(c), self.feat_norm(x), patches)
        if self.ffn is None:
            return c
        return c + self.drop_path(self.ffn(self.ffn_norm(c), grid))


class ConvFFN(nn.Module):
    """Linear, depthwise 3x3 convolution on each map, GELU, linear."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DWConv(hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, c: Tensor, grid: Grid) -> Tensor:
        """``[B, M, C] -> [B, M, C]``."""
        c = self.drop(self.act(self.dwconv(self.fc1(c), grid)))
        return self.drop(self.fc2(c))


class DWConv(nn.Module):
    """One depthwise 3x3 convolution, shared by the three maps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, c: Tensor, grid: Grid) -> Tensor:
        """``[B, M, C] -> [B, M, C]``."""
        maps = [self.dwconv(level) for level in split_levels(c, grid)]
        return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)


class InteractionBlock(nn.Module):
    """An injector before and an extractor after a group of the encoder's blocks."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        n_points: int,
        *,
        deform_ratio: float,
        init_values: float,
        with_cffn: bool,
        cffn_ratio: float,
        drop: float,
        drop_path: float,
        extra_extractor: bool,
    ) -> None:
        """
        Args:
            extra_extractor: add two more extractors, as the last interaction has.

        The other arguments are those of ``Injector`` and ``Extractor``.
        """
        super().__init__()

        def extractor() -> Extractor:
            return Extractor(
                dim,
                num_heads,
                n_points,
                deform_ratio,
                with_cffn=with_cffn,
                cffn_ratio=cffn_ratio,
                drop=drop,
                drop_path=drop_path,
            )

        self.injector = Injector(dim, num_heads, n_points, deform_ratio, init_values)
        self.extractor = extractor()
        self.extra_extractors = None
        if extra_extractor:
            self.extra_extractors = nn.Sequential(extractor(), extractor())

    def extractors(self) -> list[Extractor]:
        """All extractors, in the order in which they are applied."""
        return [self.extractor, *(self.extra_extractors or ())]


def split_levels(c: Tensor, grid: Grid) -> list[Tensor]:
    """Tokens ``[B, M, C]`` to the maps ``[B, C, h, w]`` of strides 8, 16 and 32."""
    sizes = [height * width for height, width in grid.levels]
    return [
        level.transpose(1, 2).unflatten(2, shape).contiguous()
        for level, shape in zip(c.split(sizes, dim=1), grid.levels)
    ]


def _centres(height: int, width: int, like: Tensor) -> Tensor:
    """(x, y) of the pixel centres of a map, row by row, ``[height * width, 2]``, float32."""
    y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
