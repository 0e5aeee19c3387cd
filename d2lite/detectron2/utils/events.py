"""Metrics of a running job: the storage they are put into and the writers that show them.

The storage lives in ``utils/_event_storage.py``, the writers in ``utils/_event_writers.py``.
"""

from fvcore.common.history_buffer import HistoryBuffer

from detectron2._missing import missing_getattr
from detectron2.utils._event_storage import EventStorage, get_event_storage, has_event_storage
from detectron2.utils._event_writers import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "HistoryBuffer",
    "JSONWriter",
    "PathManager",
    "TensorboardXWriter",
    "get_event_storage",
    "has_event_storage",
]

__getattr__ = missing_getattr(__name__)
