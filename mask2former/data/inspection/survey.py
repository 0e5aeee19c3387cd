"""Goes through the records of a set: missing and broken files, counts, classes."""

import os
import random
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from detectron2.data import DatasetCatalog, MetadataCatalog

from .examine import Finding, examine, missing_files
from .sets import id_names


@dataclass
class Survey:
    """What a set holds.

    Attributes:
        records: all of them.
        examined: how many were decoded; the others were only looked for.
        missing: files that records name and that do not exist.
        problems: of the examined records, one sentence each, beginning with the file.
        objects, pixels: class name -> number of objects or pixels in the examined records.
        images: class name -> examined images that show it.
        empty: image files of examined records without annotations.
        names: all classes in their order; those without an object can be told from it.
    """

    records: int = 0
    examined: int = 0
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    objects: Counter = field(default_factory=Counter)
    pixels: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing missing, nothing wrong."""
        return not self.missing and not self.problems


def survey(
    name: str,
    *,
    sample: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Survey:
    """Reads set ``name``.

    Args:
        sample: decode only so many records, drawn at random; None: all. All records' files are
            looked for in any case.
        seed: of the draw.
        workers: threads (decoding runs outside Python's lock); None: one a core.
        progress: shows a bar.

    Raises:
        FileNotFoundError: the set's own files are not there (see `expected_files`).
    """
    records = DatasetCatalog.get(name)
    images = [r for r in records if "file_name" in r]
    metadata = MetadataCatalog.get(name)
    names = id_names(name)
    out = Survey(records=len(records), names=names.all)
    for record in images:
        out.missing += missing_files(record)
    gone = set(out.missing)
    chosen = images
    if sample is not None and sample < len(images):
        chosen = random.Random(seed).sample(images, sample)
    chosen = [r for r in chosen if gone.isdisjoint(str(v) for v in r.values() if v is not None)]
    out.examined = len(chosen)

    ignore = metadata.get("ignore_label", None)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        findings = pool.map(lambda r: examine(r, names, ignore), chosen)
        bar = tqdm(
            findings, total=len(chosen), desc=name, unit="image", disable=not (progress and chosen)
        )
        _add_up(out, zip(bar, chosen))  # in this order the bar sees the end
    return out


def _add_up(out: Survey, pairs: Iterable[tuple[Finding, dict[str, Any]]]) -> None:
    for finding, record in pairs:
        out.problems += finding.problems
        if not finding.annotated:
            out.empty.append(record["file_name"])
        out.objects.update(finding.objects)
        out.pixels.update(finding.pixels)
        out.images.update({*finding.objects, *finding.pixels})
