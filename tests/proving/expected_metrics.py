"""Metrics that a config's evaluation has to report: one of each evaluator's, by type and switch.

After the table of evaluators of the published code, written down apart from our own.
"""

from typing import Any

_PQ, _MIOU, _AP = "panoptic_seg/PQ", "sem_seg/mIoU", "segm/AP"
# evaluator type -> [(switch under MODEL.MASK_FORMER.TEST or "", metric)]
_TABLE = {
    "sem_seg": [("", _MIOU)],
    "coco": [("", _AP), ("", "bbox/AP")],
    "lvis": [("", _AP), ("", "segm/APr")],
    "coco_panoptic_seg": [("PANOPTIC_ON", _PQ), ("INSTANCE_ON", _AP), ("SEMANTIC_ON", _MIOU)],
    "ade20k_panoptic_seg": [("", _MIOU), ("PANOPTIC_ON", _PQ), ("INSTANCE_ON", _AP)],
    "mapillary_vistas_panoptic_seg": [("PANOPTIC_ON", _PQ), ("SEMANTIC_ON", _MIOU)],
    "mapillary_vistas_instance_seg": [("INSTANCE_ON", _AP)],
    "cityscapes_panoptic_seg": [
        ("PANOPTIC_ON", _PQ),
        ("SEMANTIC_ON", "sem_seg/IoU"),
        ("INSTANCE_ON", _AP),
    ],
    "cityscapes_instance": [("", _AP), ("", "segm/AP50")],
    "cityscapes_sem_seg": [("", "sem_seg/IoU"), ("", "sem_seg/iIoU")],
}


def expected_metrics(evaluator_type: str, switches: Any) -> list[str]:
    """Flattened names, e.g. ``["panoptic_seg/PQ", "segm/AP"]``.

    Args:
        evaluator_type: of the test set's metadata.
        switches: the node MODEL.MASK_FORMER.TEST.
    """
    return [m for switch, m in _TABLE[evaluator_type] if not switch or switches[switch]]
