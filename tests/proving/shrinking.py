"""What makes a published config cheap enough to be run on the spot, and what stays as published.

As published: data sets and their classes, mapper, augmentation kinds, colour jitter, backbone type
with its depths, heads, windows and dilations, pixel and transformer decoder, losses and their
weights, IBS, crop sampling, optimizer, schedule and clipping types, mixed precision, evaluators.

Smaller: images and crops, widths, decoder layers, queries, points; one iteration of two images.
Predictions are kept whatever their score, so that evaluation has something to measure.
"""

from typing import Any

# Sides of training crops and test images in pixels.
SIDE = 64

ALWAYS: dict[str, Any] = {
    "MODEL.WEIGHTS": "",
    "MODEL.DEVICE": "cpu",
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.STEPS": (),
    "DATALOADER.NUM_WORKERS": 0,
    "INPUT.MIN_SIZE_TRAIN": (SIDE, SIDE + 16),
    "INPUT.MAX_SIZE_TRAIN": 4 * SIDE,
    "INPUT.MIN_SIZE_TEST": SIDE,
    "INPUT.MAX_SIZE_TEST": 4 * SIDE,
    "INPUT.IMAGE_SIZE": SIDE,
    "INPUT.CROP.SIZE": (SIDE, SIDE),
    "INPUT.SCALE_OPTIONS": [8, 12, 16, 24, 32],
    "INPUT.NEW_SAMPLING_SHORTEST_SIDE_MIN": SIDE,
    "INPUT.NEW_SAMPLING_SHORTEST_SIDE_MAX": 2 * SIDE,
    "INPUT.NEW_SAMPLING_OVERALL_MAX_SIZE": 4 * SIDE,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 64,
    "MODEL.MASK_FORMER.DEC_LAYERS": 3,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 12,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 64,
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.0,
    "TEST.VIS_IMAGES": 1,
    # With fewer, a panoptic model without training may name stuff only: no AP of things then.
    "TEST.DETECTIONS_PER_IMAGE": 40,
    "SEED": 1,
    "TEST.AUG.MIN_SIZES": (SIDE, SIDE + 16),
    "TEST.AUG.MAX_SIZE": 4 * SIDE,
}
# Channels per attention head of Swin and DiNAT (published: 32) and of ViT-Adapter's encoders (64).
HEAD_CHANNELS = 4
# timm's plain transformers by the size in their name: attention heads.
_VIT_HEADS = {"small": 6, "base": 12, "large": 16}
_CONVNEXT_WIDTHS = [8, 16, 32, 64]


def shrinking(cfg: Any) -> dict[str, Any]:
    """Overrides for a loaded config: key -> value."""
    out = dict(ALWAYS)
    if cfg.INPUT.SIZE_DIVISIBILITY > 0:
        out["INPUT.SIZE_DIVISIBILITY"] = SIDE
    out["MODEL.TIMM.PRETRAINED"] = out["MODEL.VIT_ADAPTER.PRETRAINED"] = False
    out["MODEL.VIT_ADAPTER.EMBED_DIM"] = HEAD_CHANNELS * cfg.MODEL.VIT_ADAPTER.NUM_HEADS
    out["MODEL.VIT_ADAPTER.CONV_INPLANE"] = 8
    out["MODEL.SWIN.EMBED_DIM"] = HEAD_CHANNELS * cfg.MODEL.SWIN.NUM_HEADS[0]
    out["MODEL.DINAT.EMBED_DIM"] = HEAD_CHANNELS * cfg.MODEL.DINAT.NUM_HEADS[0]
    return out


def timm_options(cfg: Any) -> dict[str, Any]:
    """Widths for timm, which a command line cannot give: additions to the YAML, or nothing.

    Models of timm with up to 30 million parameters keep their size.
    """
    if cfg.MODEL.BACKBONE.NAME == "D2ViTAdapter":
        heads = next(n for size, n in _VIT_HEADS.items() if size in cfg.MODEL.VIT_ADAPTER.ENCODER)
        return {"MODEL": {"VIT_ADAPTER": {"OPTIONS": {"embed_dim": HEAD_CHANNELS * heads}}}}
    if cfg.MODEL.BACKBONE.NAME == "build_timm_backbone" and "convnext" in cfg.MODEL.TIMM.NAME:
        return {"MODEL": {"TIMM": {"OPTIONS": {"dims": _CONVNEXT_WIDTHS}}}}
    return {}


def as_options(overrides: dict[str, Any]) -> list[str]:
    """``KEY VALUE`` pairs of a command line."""
    return [text for key, value in overrides.items() for text in (key, str(value))]
