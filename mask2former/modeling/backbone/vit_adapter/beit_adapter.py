"""BEiT and BEiTv2 with the adapter: the backbone of ViT-Adapter's COCO panoptic result."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from ...errors import BackboneError
from .adapter import PATCH, ViTAdapter
from .beit import Block, PatchEmbed


class BEiTAdapter(ViTAdapter):
    """Keywords, parameter names and numbers are those of the published ``BEiTAdapter``."""

    def __init__(
        self,
        *,
        img_size: int = 224,
        pretrain_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        init_values: float = 0.0,
        use_abs_pos_emb: bool = False,
        use_rel_pos_bias: bool = True,
        window_attn: bool | Sequence[bool] = False,
        window_size: int | Sequence[int] = 14,
        **adapter,
    ) -> None:
        """
        Args:
            img_size: image side for which the absolute position embedding has entries.
            pretrain_size: accepted as published; the embedding's own side decides.
            patch_size: must be 16.
            drop_path_rate: of the last block and of the extractors; in blocks it grows from 0.
            init_values: of the layer scales and of the injectors' scale.
            window_attn, window_size: one value, or one a block.
            adapter: the remaining keywords of ``ViTAdapter.add_adapter``.

        Raises:
            BackboneError: another patch size, lists that do not fit ``depth``, or sizes that do not
                fit each other.
        """
        super().__init__()
        if patch_size != PATCH:
            raise BackboneError(f"MODEL.VIT_ADAPTER.PATCH_SIZE is {patch_size}, must be {PATCH}")
        windowed = _one_a_block(window_attn, depth, "WINDOW_ATTN")
        window_sizes = _one_a_block(window_size, depth, "WINDOW_SIZE")
        if min(window_sizes) < 1:
            raise BackboneError(
                f"MODEL.VIT_ADAPTER.WINDOW_SIZE {window_sizes}: sides must be at least 1"
            )
        if embed_dim % num_heads:
            raise BackboneError(
                f"MODEL.VIT_ADAPTER.EMBED_DIM ({embed_dim}) must be divisible by "
                f"MODEL.VIT_ADAPTER.NUM_HEADS ({num_heads})"
            )
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.pos_embed = None
        if use_abs_pos_emb:
            tokens = (img_size // patch_size) ** 2
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                drop=drop_rate,
                drop_path=drop_path_rate * i / max(depth - 1, 1),
                init_values=init_values,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop_rate,
                windowed=windowed[i],
                window_size=window_sizes[i],
                bias_table=use_rel_pos_bias,
            )
            for i in range(depth)
        )
        self._initialise_encoder()
        self.add_adapter(
            embed_dim,
            depth,
            init_values=init_values,
            drop_path_rate=drop_path_rate,
            in_chans=in_chans,
            **adapter,
        )

    def embed(self, images: Tensor) -> tuple[Tensor, None, tuple[int, int]]:
        x = self.patch_embed(images)  # [B, H/16, W/16, C]
        height, width = x.shape[1:3]
        if self.pos_embed is not None:
            x = x + self._resized_position_embedding(height, width)
        return self.pos_drop(x).flatten(1, 2), None, (height, width)

    def encode(
        self, x: Tensor, others: None, blocks: range, context: tuple[int, int]
    ) -> tuple[Tensor, None]:
        x = x.unflatten(1, context)
        for i in blocks:
            x = self.recompute(self.blocks[i], x)
        return x.flatten(1, 2), None

    def _resized_position_embedding(self, height: int, width: int) -> Tensor:
        side = round(self.pos_embed.shape[1] ** 0.5)
        embedding = self.pos_embed.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if (height, width) != (side, side):
            embedding = F.interpolate(embedding, size=(height, width), mode="bicubic")
        return embedding.permute(0, 2, 3, 1)

    def _initialise_encoder(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


@BACKBONE_REGISTRY.register()
class D2BEiTAdapter(BEiTAdapter):
    """``BEiTAdapter`` under ``MODEL.BACKBONE.NAME: D2BEiTAdapter``; keys ``MODEL.VIT_ADAPTER``.

    BEiT's weights come from a file of ``tools/convert-vit-adapter-mmdet-to-d2.py``.
    """

    @configurable
    def __init__(self, **options) -> None:
        super().__init__(**options)

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        keys = cfg.MODEL.VIT_ADAPTER
        return {
            **adapter_options(cfg, input_shape),
            "img_size": keys.PRETRAIN_SIZE,
            "pretrain_size": keys.PRETRAIN_SIZE,
            "patch_size": keys.PATCH_SIZE,
            "embed_dim": keys.EMBED_DIM,
            "depth": keys.DEPTH,
            "num_heads": keys.NUM_HEADS,
            "mlp_ratio": keys.MLP_RATIO,
            "qkv_bias": keys.QKV_BIAS,
            "drop_rate": keys.DROP_RATE,
            "attn_drop_rate": keys.ATTN_DROP_RATE,
            "use_abs_pos_emb": keys.USE_ABS_POS_EMB,
            "use_rel_pos_bias": keys.USE_REL_POS_BIAS,
            "window_attn": keys.WINDOW_ATTN,
            "window_size": keys.WINDOW_SIZE,
        }


def adapter_options(cfg, input_shape: ShapeSpec) -> dict:
    """The keywords of ``ViTAdapter.add_adapter`` that every encoder has."""
    keys = cfg.MODEL.VIT_ADAPTER
    return {
        "conv_inplane": keys.CONV_INPLANE,
        "n_points": keys.N_POINTS,
        "deform_num_heads": keys.DEFORM_NUM_HEADS,
        "deform_ratio": keys.DEFORM_RATIO,
        "with_cffn": keys.WITH_CFFN,
        "cffn_ratio": keys.CFFN_RATIO,
        "add_vit_feature": keys.ADD_VIT_FEATURE,
        "interaction_indexes": keys.INTERACTION_INDEXES,
        "init_values": keys.INIT_VALUES,
        "drop_path_rate": keys.DROP_PATH_RATE,
        "norm": keys.NORM,
        "with_cp": keys.USE_CHECKPOINT,
        "freeze_encoder": keys.FREEZE_ENCODER,
        "in_chans": input_shape.channels,
    }


def _one_a_block(values, depth: int, key: str) -> list:
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(values) == 1:
        values = values * depth
    if len(values) != depth:
        raise BackboneError(
            f"MODEL.VIT_ADAPTER.{key} has {len(values)} entries; give one, or one for each of the "
            f"MODEL.VIT_ADAPTER.DEPTH {depth} blocks"
        )
    return values
