"""What people should look at first."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ReviewRow:
    """One image: how unsure the model is (see `proposals_of`), what it proposed."""

    image: str
    uncertainty: float
    proposals: int
    lowest_score: float | None


def review_table(rows: Iterable[ReviewRow]) -> bytes:
    """A CSV, the least certain image first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "uncertainty", "proposals", "lowest_score"])
    for row in sorted(rows, key=lambda r: (-r.uncertainty, r.image)):
        lowest = "" if row.lowest_score is None else f"{row.lowest_score:.4f}"
        writer.writerow([row.image, f"{row.uncertainty:.4f}", row.proposals, lowest])
    return text.getvalue().encode()
