"""Panoptic quality as result keys and as tables for the log."""

import itertools
import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from tabulate import tabulate

from .panoptic_quality import panoptic_quality
from .panoptic_statistics import ACCURACY, PRECISION, TP

_SUFFIXES = {"All": "", "Things": "_th", "Stuff": "_st"}
_MEASURES = ("pq", "sq", "rq")


class PanopticReport:
    """All that is said about the panoptic predictions of a data set.

    Args:
        per_image: results of :func:`~.panoptic_statistics.image_statistics`.
        categories: category id -> dict with ``isthing`` and ``name``.
    """

    def __init__(
        self, per_image: Collection[Mapping[int, np.ndarray]], categories: Mapping[int, dict]
    ) -> None:
        self.pq = panoptic_quality(per_image, categories)
        self.pixel_scores = pixel_scores(per_image, categories)
        self._categories = categories
        self._counted = {category for statistics in per_image for category in statistics}

    def results(self) -> dict[str, float]:
        """The published keys PQ, SQ, RQ, PQ_th, ..., RQ_st, x100."""
        return {
            key.upper() + _SUFFIXES[split]: 100 * self.pq[split][key]
            for split, key in itertools.product(_SUFFIXES, _MEASURES)
        }

    def things(self) -> dict[str, float]:
        """``Acc_th`` and ``Prec_th`` x100, see :func:`pixel_scores`; NaN without matched things."""
        scores = [s for c, s in self.pixel_scores.items() if self._categories[c]["isthing"]]
        return {
            name: 100 * math.fsum(s[i] for s in scores) / len(scores) if scores else float("nan")
            for i, name in enumerate(("Acc_th", "Prec_th"))
        }

    def classes(self) -> dict[str, float]:
        """``PQ-<class>``, ``SQ-<class>``, ``RQ-<class>`` x100.

        As with ``AP-<class>``, a class that was neither annotated nor predicted gives NaN.
        """
        return {
            f"{measure.upper()}-{info.get('name', category)}": 100
            * (self.pq["per_class"][category][measure] if category in self._counted else math.nan)
            for measure, (category, info) in itertools.product(_MEASURES, self._categories.items())
        }

    def class_table(self) -> str:
        """One row a class that was annotated or predicted, in per cent."""
        rows = []
        for category, info in self._categories.items():
            if category not in self._counted:
                continue
            values = [self.pq["per_class"][category][measure] for measure in _MEASURES]
            values += self.pixel_scores.get(category, (math.nan, math.nan))
            kind = "thing" if info["isthing"] else "stuff"
            rows.append([info.get("name", category), kind, *(100 * value for value in values)])
        return _table(rows, ["class", "", "PQ", "SQ", "RQ", "Acc", "Prec"])


def pixel_scores(
    per_image: Iterable[Mapping[int, np.ndarray]], categories: Mapping[int, dict]
) -> dict[int, tuple[float, float]]:
    """How well matched segments cover each other: pixel accuracy and pixel precision per class.

    **A definition of our own.** The names Acc_th and Prec_th are those of the result tables of
    de Geus and Dubbelman, "Intra-Batch Supervision for Panoptic Segmentation on High-Resolution
    Images" (WACV 2023), which introduce them because PQ hardly reacts to instances that are
    confused. No published code computes them, so the numbers here need not be theirs. Over the
    pairs that PQ matches (same class, IoU > 0.5):

    * accuracy: intersection / pixels of the ground-truth segment,
    * precision: intersection / pixels of the predicted segment that do not lie on void,

    averaged over the pairs of a class. ``Acc_th`` and ``Prec_th`` are the means over thing classes
    that have a pair.

    Args:
        per_image: results of :func:`~.panoptic_statistics.image_statistics`.
        categories: category id -> dict with ``isthing``.

    Returns:
        category id -> (accuracy, precision) in [0, 1], for categories with a matched pair.
    """
    pairs = {category: 0 for category in categories}
    sums: dict[int, tuple[list, list]] = {category: ([], []) for category in categories}
    for statistics in per_image:
        for category, values in statistics.items():
            pairs[category] += int(values[TP])
            for total, column in zip(sums[category], (ACCURACY, PRECISION)):
                total.append(float(values[column]))
    # fsum: the same bits in any order of the images, see panoptic_quality.
    return {
        category: tuple(math.fsum(total) / count for total in sums[category])
        for category, count in pairs.items()
        if count
    }


def results_table(pq: dict) -> str:
    """The pipe table All / Things / Stuff, in per cent."""
    rows = [
        [split, *(100 * pq[split][measure] for measure in _MEASURES), pq[split]["n"]]
        for split in _SUFFIXES
    ]
    return _table(rows, ["", "PQ", "SQ", "RQ", "#categories"])


def _table(rows: list[list], headers: list[str]) -> str:
    return tabulate(
        rows,
        headers=headers,
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )
