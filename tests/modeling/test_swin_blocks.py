"""Windows, their masks and their attention, against plain definitions."""

import contextlib

import pytest
import torch

from mask2former.modeling.backbone import swin_blocks
from mask2former.modeling.backbone.swin_blocks import (
    DropPath,
    Mlp,
    PatchEmbed,
    PatchMerging,
    SwinTransformerBlock,
    WindowAttention,
    shifted_window_mask,
    window_partition,
    window_reverse,
)


def test_windows_put_together_give_the_map():
    x = torch.randn(2, 6, 9, 5)
    windows = window_partition(x, 3)
    assert windows.shape == (2 * 2 * 3, 3, 3, 5)
    assert torch.equal(windows[1], x[0, :3, 3:6])  # row by row
    assert torch.equal(window_reverse(windows, 3, 6, 9), x)


@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 3), (4, 1), (3, 2)])
@pytest.mark.parametrize("size, shift", [(4, 2), (7, 3)])
def test_shift_mask_separates_tokens_from_opposite_borders(rows, columns, size, shift):
    # Tokens may attend to each other if their window also holds them together in the image.
    height, width = rows * size, columns * size
    position = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1
    )
    rolled = torch.roll(position, (-shift, -shift), (0, 1))[None]
    tokens = window_partition(rolled, size).flatten(1, 2)  # [nW, N, 2] original positions
    apart = (tokens[:, :, None] - tokens[:, None, :]).abs().amax(-1) >= size
    # A window as large as the map still has a seam at the border.
    seam = (tokens < shift)[:, :, None] != (tokens < shift)[:, None, :]
    in_last = torch.stack(
        torch.meshgrid(
            torch.arange(rows) == rows - 1, torch.arange(columns) == columns - 1, indexing="ij"
        ),
        -1,
    ).view(-1, 1, 1, 2)
    expected = apart | (seam & in_last).any(-1)

    mask = shifted_window_mask(rows, columns, size, shift, dtype=torch.float32, device="cpu")
    assert torch.equal(mask, torch.where(expected, -100.0, 0.0))


@pytest.mark.parametrize("windows_per_image", [None, 2])
def test_window_attention_is_softmax_of_products_bias_and_mask(windows_per_image):
    torch.manual_seed(0)
    attention = WindowAttention(8, (2, 3), num_heads=2).eval()
    x = torch.randn(6, 6, 8)
    mask = None
    if windows_per_image:
        mask = torch.randn(windows_per_image, 6, 6)

    q, k, v = attention.qkv(x).chunk(3, -1)
    q, k, v = (t.view(6, 6, 2, 4).transpose(1, 2) for t in (q, k, v))
    table, index = attention.relative_position_bias_table, attention.relative_position_index
    logits = q @ k.transpose(-2, -1) * 4**-0.5 + table[index].permute(2, 0, 1)
    if mask is not None:
        logits = logits + mask.repeat(3, 1, 1)[:, None]
    expected = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(6, 6, 8))

    torch.testing.assert_close(attention(x, mask), expected, rtol=1e-5, atol=1e-6)


def test_relative_position_index_depends_on_the_offset_only():
    index = WindowAttention(4, (3, 3), num_heads=1).relative_position_index
    assert index.shape == (9, 9)
    assert index[0, 4] == index[4, 8]  # one down, one right
    assert index[0, 0] == index[8, 8] == 12  # the middle of a 5 x 5 table
    assert index.unique().numel() == 25


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="divisible"):
        WindowAttention(10, (2, 2), num_heads=3)


def test_shift_must_be_smaller_than_the_window():
    with pytest.raises(ValueError, match="shift_size 4"):
        SwinTransformerBlock(8, 2, window_size=4, shift_size=4)


def test_block_keeps_maps_that_are_no_multiple_of_the_window():
    block = SwinTransformerBlock(8, 2, window_size=4, shift_size=2)
    mask = shifted_window_mask(2, 3, 4, 2, dtype=torch.float32, device="cpu")
    assert block(torch.randn(2, 5, 9, 8), mask).shape == (2, 5, 9, 8)


def test_patch_merging_concatenates_rows_before_columns_and_pads_odd_sides():
    merging = PatchMerging(1)
    merging.norm = torch.nn.Identity()
    merging.reduction = torch.nn.Identity()
    x = torch.arange(1.0, 7.0).view(1, 3, 2, 1)  # [[1, 2], [3, 4], [5, 6]]
    assert merging(x).tolist() == [[[[1, 3, 2, 4]], [[5, 0, 6, 0]]]]


def test_patch_embedding_pads_images_to_whole_patches():
    assert PatchEmbed(4, 3, 8, norm=True)(torch.randn(1, 3, 9, 4)).shape == (1, 3, 1, 8)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = DropPath(0.25)(torch.ones(4000, 3))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(dropped[:, 0], dropped[:, 2])
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)


def test_drop_path_does_nothing_in_evaluation():
    x = torch.randn(3, 2)
    assert DropPath(0.9).eval()(x) is x


class TestMlpMemory:
    """What fc2 needs of the activation's output is made again in backward."""

    @pytest.fixture
    def mlp_and_x(self):
        torch.manual_seed(0)
        return Mlp(6, 24), torch.randn(2, 5, 7, 6)

    @pytest.mark.parametrize("autocast", [False, True])
    def test_values_and_gradients_are_the_same_to_the_bit(self, mlp_and_x, autocast):
        mlp, x = mlp_and_x
        results = []
        for forward in (mlp, lambda x: mlp.fc2(mlp.act(mlp.fc1(x)))):
            images = x.clone().requires_grad_()
            mlp.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                output = forward(images)
            output.float().cos().sum().backward()
            gradients = [p.grad.clone() for p in mlp.parameters()]
            results.append([output.detach(), images.grad, *gradients])
        for a, b in zip(*results):
            assert torch.equal(a, b)

    def test_the_wide_tensor_is_not_kept_but_made_again(self, mlp_and_x):
        mlp, x = mlp_and_x
        calls = []
        mlp.act.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
        output = mlp(x)
        assert calls == [True]
        output.sum().backward()
        assert calls == [True, False]

    def test_without_gradients_nothing_changes(self, mlp_and_x):
        mlp, x = mlp_and_x
        with torch.no_grad():
            assert torch.equal(mlp(x), mlp.fc2(mlp.act(mlp.fc1(x))))

    def test_a_blocks_gradients_are_the_same_to_the_bit(self, monkeypatch):
        torch.manual_seed(0)
        block, x = SwinTransformerBlock(8, 2, window_size=4), torch.randn(2, 8, 12, 8)
        results = []
        for enabled in (True, False):
            if not enabled:
                monkeypatch.setattr(
                    swin_blocks, "_made_again", lambda f, x: contextlib.nullcontext(f(x))
                )
            images = x.clone().requires_grad_()
            block.zero_grad()
            output = block(images, None)
            output.cos().sum().backward()
            results.append([output, images.grad, *(p.grad.clone() for p in block.parameters())])
        for a, b in zip(*results):
            assert torch.equal(a, b)
