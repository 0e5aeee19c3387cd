"""MaskFormer's decoder (Cheng et al., NeurIPS 2021, section 3.3), and the registry of decoders."""

import fvcore.nn.weight_init as weight_init
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import Conv2d
from detectron2.utils.registry import Registry

from ..mask_predictions import MaskPredictions
from .layers import MLP
from .position_encoding import PositionEmbeddingSine
from .transformer import Transformer

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_MODULE")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Transformer decoders by name. One is called as ``(cfg, in_channels, mask_classification)`` and gives
a module ``forward(x, mask_features, mask=None) -> dict`` with pred_logits, pred_masks, aux_outputs.
"""


def build_transformer_decoder(cfg, in_channels: int, mask_classification: bool = True) -> nn.Module:
    """Builds the decoder named by ``MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME``.

    Args:
        cfg: the configuration.
        in_channels: channels of the feature map(s) the decoder looks at.
        mask_classification: predict classes of masks, not only masks.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    return TRANSFORMER_DECODER_REGISTRY.get(name)(cfg, in_channels, mask_classification)


@TRANSFORMER_DECODER_REGISTRY.register()
class StandardTransformerDecoder(nn.Module):
    """DETR's transformer on one feature map, with class and mask heads on its queries.

    Args:
        in_channels: channels of the feature map.
        mask_classification: predict classes of masks; False gives masks only (one query a class).
        num_classes: K, without the "no object" class.
        hidden_dim: query width C.
        num_queries: Q.
        nheads: attention heads.
        dropout: in the transformer.
        dim_feedforward: width of the feed-forward layers.
        enc_layers: encoder layers, 0 for none.
        dec_layers: decoder layers.
        pre_norm: layer norm before each block instead of after it.
        deep_supervision: also give the predictions of the earlier layers.
        mask_dim: channels of the per-pixel embedding.
        enforce_input_project: project the feature map even if it has C channels.
    """

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
        dropout: float,
        dim_feedforward: int,
        enc_layers: int,
        dec_layers: int,
        pre_norm: bool,
        deep_supervision: bool,
        mask_dim: int,
        enforce_input_project: bool,
    ) -> None:
        super().__init__()
        self.mask_classification = mask_classification
        self.deep_supervision = deep_supervision
        self.num_queries = num_queries

        self.pe_layer = PositionEmbeddingSine(hidden_dim // 2, normalize=True)
        self.transformer = Transformer(
            d_model=hidden_dim,
            dropout=dropout,
            nhead=nheads,
            dim_feedforward=dim_feedforward,
            num_encoder_layers=enc_layers,
            num_decoder_layers=dec_layers,
            normalize_before=pre_norm,
            return_intermediate_dec=deep_supervision,
        )
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        if in_channels != hidden_dim or enforce_input_project:
            self.input_proj = Conv2d(in_channels, hidden_dim, kernel_size=1)
            weight_init.c2_xavier_fill(self.input_proj)
        else:
            self.input_proj = nn.Sequential()

        if mask_classification:
            self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)

    @classmethod
    def from_config(cls, cfg, in_channels: int, mask_classification: bool) -> dict:
        mask_former = cfg.MODEL.MASK_FORMER
        return {
            "in_channels": in_channels,
            "mask_classification": mask_classification,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": mask_former.HIDDEN_DIM,
            "num_queries": mask_former.NUM_OBJECT_QUERIES,
            "nheads": mask_former.NHEADS,
            "dropout": mask_former.DROPOUT,
            "dim_feedforward": mask_former.DIM_FEEDFORWARD,
            "enc_layers": mask_former.ENC_LAYERS,
            "dec_layers": mask_former.DEC_LAYERS,
            "pre_norm": mask_former.PRE_NORM,
            "deep_supervision": mask_former.DEEP_SUPERVISION,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "enforce_input_project": mask_former.ENFORCE_INPUT_PROJ,
        }

    def forward(
        self, x: Tensor, mask_features: Tensor, mask: Tensor | None = None
    ) -> MaskPredictions:
        """
        Args:
            x: feature map [B, in_channels, h, w].
            mask_features: per-pixel embedding [B, mask_dim, H/4, W/4].
            mask: bool [B, h, w], True on padding, or None.

        Returns:
            pred_logits [B, Q, K + 1] with mask classification, pred_masks [B, Q, H/4, W/4], and
            aux_outputs with deep supervision.
        """
        pos = self.pe_layer(x, mask).to(self.query_embed.weight.dtype)  # [B or 1, C, h, w]
        decoded, _ = self.transformer(
            self.input_proj(x), mask, self.query_embed.weight, pos
        )  # [layers, B, Q, C]

        layers = [self._predict(queries, mask_features) for queries in decoded]
        outputs = layers.pop()
        if self.deep_supervision:
            outputs["aux_outputs"] = layers
        return outputs

    def _predict(self, queries: Tensor, mask_features: Tensor) -> MaskPredictions:
        """Class logits [B, Q, K + 1] and (lazy) masks of the queries [B, Q, C]."""
        classes = {"pred_logits": self.class_embed(queries)} if self.mask_classification else {}
        embed = self.mask_embed(queries)  # [B, Q, mask_dim]
        return MaskPredictions(mask_embed=embed, mask_features=mask_features, **classes)
