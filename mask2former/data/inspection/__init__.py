"""Looks at a registered data set from outside: is it there, is it sound, what is in it.

The library behind ``tools/datasets.py``: `sets` describes what is registered, `expected` which
files that needs, `survey` reads them, `drawing` shows them.
"""

from .drawing import contact_sheet, draw_record
from .expected import Expected, expected_files, near_miss
from .sets import SetInfo, describe, registered_sets
from .survey import Survey, survey

__all__ = [
    "Expected",
    "SetInfo",
    "Survey",
    "contact_sheet",
    "describe",
    "draw_record",
    "expected_files",
    "near_miss",
    "registered_sets",
    "survey",
]
