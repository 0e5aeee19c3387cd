"""The criterion that a config describes: its matcher, its losses and their weights."""

from .criterion import SetCriterion
from .ibs import build_intra_batch_supervision
from .matcher import HungarianMatcher
from .semantic_maps import SemanticMapLoss


def build_criterion(cfg) -> SetCriterion:
    """The criterion of a config: the loss weights also weigh the matching costs (section 3.3)."""
    mask_former = cfg.MODEL.MASK_FORMER
    matcher = HungarianMatcher(
        cost_class=mask_former.CLASS_WEIGHT,
        cost_mask=mask_former.MASK_WEIGHT,
        cost_dice=mask_former.DICE_WEIGHT,
        num_points=mask_former.TRAIN_NUM_POINTS,
    )
    weights = {
        "loss_ce": mask_former.CLASS_WEIGHT,
        "loss_mask": mask_former.MASK_WEIGHT,
        "loss_dice": mask_former.DICE_WEIGHT,
    }
    if cfg.MODEL.META_ARCHITECTURE == "SeMaskMaskFormer":
        weights["loss_cate"] = mask_former.CATE_WEIGHT
    if mask_former.APPLY_IBS:
        weights["loss_mask_ibs"] = mask_former.IBS_WEIGHT
    if mask_former.DEEP_SUPERVISION:
        auxiliary = range(mask_former.DEC_LAYERS - 1)
        weights |= {f"{name}_{i}": w for i in auxiliary for name, w in list(weights.items())}
    criterion = SetCriterion(
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        matcher=matcher,
        weight_dict=weights,
        eos_coef=mask_former.NO_OBJECT_WEIGHT,
        losses=["labels", "masks"],
        num_points=mask_former.TRAIN_NUM_POINTS,
        oversample_ratio=mask_former.OVERSAMPLE_RATIO,
        importance_sample_ratio=mask_former.IMPORTANCE_SAMPLE_RATIO,
    )
    if "loss_cate" in weights:
        criterion.add_loss("cate", SemanticMapLoss(cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE))
    if "loss_mask_ibs" in weights:
        criterion.add_loss("ibs", build_intra_batch_supervision(cfg, criterion.uncertain_points))
    return criterion
