"""The masked-attention transformer decoder (Cheng et al., CVPR 2022, section 3.2)."""

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import Conv2d

from ..checkpoint_keys import CURRENT_VERSION, convert_old_keys
from ..mask_predictions import MaskPredictions
from .layers import (
    MLP,
    CrossAttentionLayer,
    FFNLayer,
    SelfAttentionLayer,
)
from .maskformer_transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
)
from .position_encoding import PositionEmbeddingSine

NUM_FEATURE_LEVELS = 3  # strides 32, 16, 8, visited in turn (section 3.2.2)


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Learned queries that look at one feature map after another, each inside its own mask.

    Args:
        in_channels: channels of the three feature maps.
        mask_classification: must be True; per-pixel models use other decoders.
        num_classes: K, without the "no object" class.
        hidden_dim: query width C.
        num_queries: Q.
        nheads: attention heads.
        dim_feedforward: width of the feed-forward layers.
        dec_layers: decoder layers; there is one prediction more than layers.
        pre_norm: layer norm before each block instead of after it.
        mask_dim: channels of the per-pixel embedding.
        enforce_input_project: project the feature maps even if they have C channels.

    Raises:
        ValueError: ``mask_classification`` is False.
    """

    _version = CURRENT_VERSION

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        nheads: int,
        dim_feedforward: int,
        dec_layers: int,
        pre_norm: bool,
        mask_dim: int,
        enforce_input_project: bool,
    ) -> None:
        super().__init__()
        if not mask_classification:
            raise ValueError(
                "MultiScaleMaskedTransformerDecoder predicts masks with classes; for per-pixel "
                "heads set MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME to StandardTransformerDecoder"
            )
        self.mask_classification = mask_classification
        self.num_heads = nheads
        self.num_layers = dec_layers
        self.num_queries = num_queries
        self.num_feature_levels = NUM_FEATURE_LEVELS

        # Positional encoding: half the channels for y, half for x.
        self.pe_layer = PositionEmbeddingSine(hidden_dim // 2, normalize=True)

        # Decoder layers. The published modules carry no dropout.
        norm = {"normalize_before": pre_norm}
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, nheads, **norm) for _ in range(dec_layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, nheads, **norm) for _ in range(dec_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, dim_feedforward, **norm) for _ in range(dec_layers)
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)

        # Learned queries (section 3.2.3), their positions, and one vector a feature level.
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(NUM_FEATURE_LEVELS, hidden_dim)
        self.input_proj = nn.ModuleList()
        for _ in range(NUM_FEATURE_LEVELS):
            if in_channels != hidden_dim or enforce_input_project:
                self.input_proj.append(Conv2d(in_channels, hidden_dim, kernel_size=1))
                weight_init.c2_xavier_fill(self.input_proj[-1])
            else:
                self.input_proj.append(nn.Sequential())

        # Heads, shared by all predictions.
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)

    @classmethod
    def from_config(cls, cfg, in_channels: int, mask_classification: bool) -> dict:
        mask_former = cfg.MODEL.MASK_FORMER
        if mask_former.DEC_LAYERS < 1:
            raise ValueError(
                f"MODEL.MASK_FORMER.DEC_LAYERS is {mask_former.DEC_LAYERS}; it counts predictions, "
                "the one of the raw queries included, so it is at least 1"
            )
        return {
            "in_channels": in_channels,
            "mask_classification": mask_classification,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": mask_former.HIDDEN_DIM,
            "num_queries": mask_former.NUM_OBJECT_QUERIES,
            "nheads": mask_former.NHEADS,
            "dim_feedforward": mask_former.DIM_FEEDFORWARD,
            # DEC_LAYERS counts predictions, and the first is made by the queries alone.
            "dec_layers": mask_former.DEC_LAYERS - 1,
            "pre_norm": mask_former.PRE_NORM,
            "enforce_input_project": mask_former.ENFORCE_INPUT_PROJ,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
        }

    def forward(
        self, x: list[Tensor], mask_features: Tensor, mask: Tensor | None = None
    ) -> MaskPredictions:
        """
        Args:
            x: three feature maps, coarse to fine, [B, in_channels, H/32, W/32] to H/8.
            mask_features: per-pixel embedding [B, mask_dim, H/4, W/4].
            mask: ignored, as published: padding takes part in attention.

        Returns:
            pred_logits [B, Q, K + 1], pred_masks [B, Q, H/4, W/4], aux_outputs (see
            :class:`MaskPredictions`).
        """
        del mask
        if len(x) != self.num_feature_levels:
            raise ValueError(f"expected {self.num_feature_levels} feature maps, got {len(x)}")

        keys, values = self._flatten_levels(x)  # 3 x [B, hw, C] each
        level_masks = self._level_mask_features(x, mask_features)  # 3 x [B, mask_dim, hw]

        batch = mask_features.shape[0]
        queries = self.query_feat.weight.expand(batch, -1, -1)  # [B, Q, C]
        query_pos = self.query_embed.weight  # [Q, C]

        logits, embed = self._predict(queries)  # [B, Q, K + 1], [B, Q, mask_dim]
        predictions = [(logits, embed)]
        for i in range(self.num_layers):
            level = i % self.num_feature_levels
            queries = self.transformer_cross_attention_layers[i](
                queries,
                keys[level],
                values[level],
                attend=self._attention_mask(embed, level_masks[level]),  # [B, 1, Q, hw]
                query_pos=query_pos,
            )
            queries = self.transformer_self_attention_layers[i](queries, query_pos)
            queries = self.transformer_ffn_layers[i](queries)
            logits, embed = self._predict(queries)
            predictions.append((logits, embed))

        layers = [
            MaskPredictions(pred_logits=logits, mask_embed=embed, mask_features=mask_features)
            for logits, embed in predictions
        ]
        outputs = layers.pop()
        outputs["aux_outputs"] = layers
        return outputs

    def _flatten_levels(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Feature maps as lists of tokens [B, hw, C], with and without their positions."""
        keys, values = [], []
        for level, features in enumerate(x):
            positions = self.pe_layer(features, None).flatten(2).transpose(1, 2)
            projected = self.input_proj[level](features).flatten(2).transpose(1, 2)
            values.append(projected + self.level_embed.weight[level])
            keys.append(values[-1] + positions.to(self.level_embed.weight.dtype))
        return keys, values

    @torch.no_grad()
    def _level_mask_features(self, x: list[Tensor], mask_features: Tensor) -> list[Tensor]:
        """The per-pixel embedding at the size of each level, [B, mask_dim, hw] each.

        Resizing is linear, so masks made from these equal resized masks.
        """
        return [_shrink(mask_features, level.shape[-2:]).flatten(2) for level in x]

    def _predict(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [B, Q, K + 1] and mask embeddings [B, Q, mask_dim] of the queries."""
        normed = self.decoder_norm(queries)
        return self.class_embed(normed), self.mask_embed(normed)

    @torch.no_grad()
    def _attention_mask(self, mask_embed: Tensor, mask_features: Tensor) -> Tensor:
        """Equation 3: a query attends where its last mask is foreground, [B, 1, Q, hw] bool.

        A query whose mask is empty attends everywhere.
        """
        logits = mask_embed @ mask_features  # [B, Q, hw]
        attend = logits.sigmoid() >= 0.5
        attend = attend | ~attend.any(dim=-1, keepdim=True)
        return attend[:, None]

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        # The learned queries were called static_query first.
        convert_old_keys(
            state_dict,
            prefix,
            local_metadata,
            lambda name: name.replace("static_query", "query_feat"),
        )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def _shrink(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of [B, C, H, W] to a smaller size, not corner-aligned.

    By an even factor this is the mean of the four pixels in the middle of each cell; the others
    need not be read, and no interpolation kernel copies the large map.
    """
    factors = [features.shape[i - 2] // size[i] for i in range(2)]
    exact = all(f % 2 == 0 and f * size[i] == features.shape[i - 2] for i, f in enumerate(factors))
    if not exact:
        return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    (sy, sx), (y, x) = factors, (f // 2 for f in factors)
    lines = features[:, :, y - 1 :: sy] + features[:, :, y::sy]
    return (lines[..., x - 1 :: sx] + lines[..., x::sx]) * 0.25
