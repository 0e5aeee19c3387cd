"""The parts of a Swin Transformer (Liu et al., ICCV 2021): windows, block, merging, stage.

Tokens travel as ``[B, H, W, C]`` maps. Parameter names are those of the published code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.ops import checkpoint, token_layers

from .swin_attention import WindowAttention

# Added to the attention logits between tokens that the cyclic shift brought together although they
# are no neighbours in the image. [Swin, section 3.2]
SHIFT_MASK_VALUE = -100.0


def window_partition(x: Tensor, window_size: int) -> Tensor:
    """Cuts ``[B, H, W, C]`` into ``[B * nW, window_size, window_size, C]``, row by row.

    ``H`` and ``W`` must be multiples of ``window_size``.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // window_size, width // window_size
    x = x.view(batch, rows, window_size, columns, window_size, channels)
    # A copy in any case; as clone and view, torch.compile need not ask whether.
    x = x.transpose(2, 3).clone(memory_format=torch.contiguous_format)
    return x.view(batch * rows * columns, window_size, window_size, channels)


def window_reverse(windows: Tensor, window_size: int, height: int, width: int) -> Tensor:
    """Puts ``[B * nW, window_size, window_size, C]`` together again as ``[B, H, W, C]``."""
    rows, columns = height // window_size, width // window_size
    x = windows.reshape(-1, rows, columns, window_size, window_size, windows.shape[-1])
    x = x.transpose(2, 3).clone(memory_format=torch.contiguous_format)
    return x.view(len(x), height, width, windows.shape[-1])


def shifted_window_mask(
    rows: int, columns: int, window_size: int, shift: int, *, dtype: torch.dtype, device
) -> Tensor:
    """Additive attention mask of cyclically shifted windows, ``[rows * columns, N, N]``.

    ``N = window_size ** 2``. Only windows of the last row and column hold tokens from opposite
    borders of the image, so there are four kinds of window; the mask repeats these.
    """
    wrapped = (torch.arange(window_size, device=device) >= window_size - shift).int()  # [ws]
    inside = torch.zeros_like(wrapped)
    # Region of each token in the four kinds: interior, last column, last row, corner.
    regions = torch.stack(
        [
            2 * vertical[:, None] + horizontal[None, :]
            for vertical in (inside, wrapped)
            for horizontal in (inside, wrapped)
        ]
    ).flatten(1)  # [4, N]
    separated = regions[:, :, None] != regions[:, None, :]
    kinds = separated.to(dtype) * SHIFT_MASK_VALUE  # [4, N, N]

    last_row = torch.arange(rows, device=device) == rows - 1
    last_column = torch.arange(columns, device=device) == columns - 1
    kind_of_window = 2 * last_row[:, None].int() + last_column[None, :].int()  # [rows, columns]
    return kinds[kind_of_window.flatten()]


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole samples (Huang et al., ECCV 2016)."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep_prob = 1.0 - self.drop_prob
        keep = x.new_empty([x.shape[0]] + [1] * (x.ndim - 1)).bernoulli_(keep_prob)
        return x * keep.div_(keep_prob)


class Mlp(nn.Module):
    """Two linear layers with GELU between them, ``[..., C] -> [..., C]``."""

    def __init__(self, in_features: int, hidden_features: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_features, in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        with _made_again(self.act, x) as hidden:
            x = self.fc2(self.drop(hidden))
        return self.drop(x)


@contextlib.contextmanager
def _made_again(function: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[Tensor]:
    """``function(x)``, which what runs inside does not keep for backward but makes again from x.

    For functions that are quick and keep ``x`` themselves, as activations and norms do: the widest
    tensors of a block are held once, not twice. Gradients are the same to the bit.
    """
    y = function(x)
    if not (torch.is_grad_enabled() and y.requires_grad) or torch.compiler.is_compiling():
        yield y
        return
    source, storage = x.detach(), y.untyped_storage().data_ptr()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        whole = saved.untyped_storage().data_ptr() == storage and saved.numel() == y_size
        return saved.shape if whole and saved.is_contiguous() else saved

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        return packed if isinstance(packed, Tensor) else function(source).view(packed)

    y_size = y.numel()
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield y


class SwinTransformerBlock(nn.Module):
    """Window attention and a two-layer perceptron, each after a norm and inside a residual."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window_size: int = 7,
        shift_size: int = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        """
        Args:
            shift_size: tokens by which the windows are shifted, 0 <= shift_size < window_size.
        """
        super().__init__()
        if not 0 <= shift_size < window_size:
            raise ValueError(f"shift_size {shift_size} is not in [0, window_size={window_size})")
        self.window_size = window_size
        self.shift_size = shift_size
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(
            dim, (window_size, window_size), num_heads, qkv_bias, qk_scale, attn_drop, drop
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor, shift_mask: Tensor | None) -> Tensor:
        """``[B, H, W, C] -> [B, H, W, C]``; the mask is read by shifted blocks only."""
        # Kernels know the mask of a shift; without one they would still separate tokens.
        masked = not self.shift_size or shift_mask is not None
        if masked and self.has_kernels(x):
            return self._forward_in_kernels(x)
        x = x + self.drop_path(self._window_attention(self.norm1(x), shift_mask))
        with _made_again(self.norm2, x) as normed:
            return x + self.drop_path(self.mlp(normed))

    def has_kernels(self, x: Tensor) -> bool:
        """Whether ``x`` will go through compiled kernels, which read no mask."""
        if self.training:
            return False
        attn, mlp, untouched = self.attn, self.mlp, token_layers.is_untouched
        if not (untouched(attn, WindowAttention) and untouched(mlp, Mlp)):
            return False
        if not untouched(mlp.act, nn.GELU) or mlp.act.approximate != "none":
            return False
        idle = (attn.proj_drop, mlp.drop, self.drop_path)
        if not all(untouched(part, nn.Dropout, DropPath, nn.Identity) for part in idle):
            return False
        layers = (self.norm1, attn.qkv, attn.proj, self.norm2, mlp.fc1, mlp.fc2)
        channels, table = x.shape[-1], attn.relative_position_bias_table
        depth = channels // attn.num_heads
        if not token_layers.applies(x, table, layers=layers, widths=(depth,)):
            return False
        fits, after = x.dim() == 4, token_layers.width_after
        fits = fits and after(channels, self.norm1, attn.qkv) == 3 * channels
        return fits and after(channels, attn.proj, self.norm2, mlp.fc1, mlp.fc2) == channels

    def _forward_in_kernels(self, x: Tensor) -> Tensor:
        """The same in two calls that never leave the cache; no dropout, no gradients."""
        attn, size = self.attn, self.window_size
        separation = shifted_window_mask(
            2, 2, size, self.shift_size, dtype=x.dtype, device=x.device
        )  # [4, N, N], the four kinds of windows
        x = token_layers.window_attention(
            x,
            self.norm1,
            attn.qkv,
            attn.proj,
            attn.position_bias(),
            separation,
            window_size=size,
            shift=self.shift_size,
            scale=attn.scale,
        )
        return token_layers.pre_norm_perceptron(x, self.norm2, self.mlp.fc1, self.mlp.fc2)

    def _window_attention(self, x: Tensor, shift_mask: Tensor | None) -> Tensor:
        _, height, width, _ = x.shape
        size, shift = self.window_size, self.shift_size
        rows, columns = (height + size - 1) // size, (width + size - 1) // size
        # Zeros are added after the norm and take part in the attention, as published.
        padded_height, padded_width = rows * size, columns * size
        x = F.pad(x, (0, 0, 0, padded_width - width, 0, padded_height - height))  # [B, H', W', C]
        if shift:
            x = torch.roll(x, shifts=(-shift, -shift), dims=(1, 2))
        windows = window_partition(x, size).flatten(1, 2)  # [B*nW, N, C]
        windows = self.attn(windows, shift_mask if shift else None)
        x = window_reverse(windows.unflatten(1, (size, size)), size, padded_height, padded_width)
        if shift:
            x = torch.roll(x, shifts=(shift, shift), dims=(1, 2))
        return _top_left(x, height, width)


def _top_left(x: Tensor, height: int, width: int) -> Tensor:
    """``x[:, :height, :width]``."""
    if not torch.compiler.is_compiling():
        return x[:, :height, :width]
    # Dense whether something is cut off or not, or each of these cases would be compiled.
    rows, columns = (torch.arange(n, device=x.device) for n in (height, width))
    return x.index_select(1, rows).index_select(2, columns)


class PatchMerging(nn.Module):
    """Halves the map: 2 x 2 neighbours are concatenated, normed and projected to 2 C channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 2 C]``; odd sides are zero padded."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # [B, H/2, W/2, 4C], rows before columns
        return self.reduction(self.norm(x))


class PatchEmbed(nn.Module):
    """Projects patches to tokens, ``[B, in_chans, H, W] -> [B, H / patch, W / patch, C]``."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, norm: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        x = self.proj(x).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


class BasicLayer(nn.Module):
    """One stage: blocks with straight and shifted windows in turn, then maybe a patch merging."""

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        window_size: int,
        drop_path: Sequence[float],
        downsample: bool,
        use_checkpoint: bool = False,
        **block_options,
    ) -> None:
        """
        Args:
            drop_path: stochastic depth rate of each of the ``depth`` blocks.
            downsample: whether the stage ends with a ``PatchMerging``.
            use_checkpoint: recompute the blocks in the backward pass instead of keeping them.
            block_options: the remaining keywords of ``SwinTransformerBlock``.
        """
        super().__init__()
        self.window_size = window_size
        self.shift_size = window_size // 2
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                num_heads,
                window_size=window_size,
                shift_size=0 if i % 2 == 0 else self.shift_size,
                drop_path=drop_path[i],
                **block_options,
            )
            for i in range(depth)
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: ``[B, H, W, C]``.

        Returns:
            The stage's output ``[B, H, W, C]`` and the next stage's input,
            ``[B, H / 2, W / 2, 2 C]`` (the same tensor in the last stage).
        """
        x = self.run_blocks(x)
        return x, x if self.downsample is None else self.downsample(x)

    def run_blocks(self, x: Tensor) -> Tensor:
        """``[B, H, W, C] -> [B, H, W, C]``, without the patch merging."""
        shifted = [block for block in self.blocks if block.shift_size]
        mask = None
        if shifted:
            needed = not all(block.has_kernels(x) for block in shifted)
            mask = self._shift_mask(x) if needed else x.new_empty(0)
        for block in self.blocks:
            if self.use_checkpoint and self.training:
                x = checkpoint(block, x, mask)
            else:
                x = block(x, mask)
        return x

    def _shift_mask(self, x: Tensor) -> Tensor:
        """``[nW, N, N]``, shared by all shifted blocks of the stage."""
        rows = -(-x.shape[1] // self.window_size)
        columns = -(-x.shape[2] // self.window_size)
        return shifted_window_mask(
            rows, columns, self.window_size, self.shift_size, dtype=x.dtype, device=x.device
        )
