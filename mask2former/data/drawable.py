"""Makes metadata and records of every registered set fit for detectron2's Visualizer.

Two published registrations do not: thing ids of ADE20K panoptic count among all 150 classes while
``thing_classes`` has 100, and Cityscapes panoptic records do not say which segments are things.
"""

from typing import Any

from detectron2.data import Metadata


def for_drawing(metadata: Metadata) -> Metadata:
    """Metadata whose ``thing_classes`` can be indexed with every contiguous thing id.

    The given object is returned where that is so already, and never changed.
    """
    ids = (metadata.get("thing_dataset_id_to_contiguous_id") or {}).values()
    named = metadata.get("thing_classes")
    if not named or max(ids, default=-1) < len(named):
        return metadata
    values = {k: v for k, v in metadata.as_dict().items() if k not in _REPLACED}
    return Metadata(
        **values,
        thing_classes=metadata.stuff_classes,
        thing_colors=metadata.get("stuff_colors"),
    )


_REPLACED = ("thing_classes", "thing_colors")


def drawable_record(record: dict[str, Any], metadata: Metadata) -> dict[str, Any]:
    """A dataset dict whose ``segments_info`` all have ``isthing``; a shallow copy if need be."""
    segments = record.get("segments_info", ())
    if all("isthing" in segment for segment in segments):
        return record
    things = set((metadata.get("thing_dataset_id_to_contiguous_id") or {}).values())
    return {
        **record,
        "segments_info": [{"isthing": s["category_id"] in things, **s} for s in segments],
    }
