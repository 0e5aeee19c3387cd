"""What going through a data set leaves: its records, counts and findings."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .findings import Findings


@dataclass
class SplitSurvey:
    """One role of a candidate: its records and what was counted."""

    records: list[dict[str, Any]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    per_class: Counter = field(default_factory=Counter)
    objects: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height as shown
    contents: dict[str, str] = field(default_factory=dict)  # content hash -> file


@dataclass
class Survey:
    """What was found: per role, and the findings over all."""

    splits: dict[str, SplitSurvey] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)

    @property
    def classes(self) -> list[str]:
        """Class names of the training split."""
        return self.splits["train"].classes

    @property
    def most_objects(self) -> int:
        """The most objects in one image."""
        return max((n for s in self.splits.values() for n in s.objects), default=0)
