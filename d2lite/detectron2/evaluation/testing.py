"""Shows and verifies evaluation results."""

import logging
import pprint
import sys
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from detectron2._missing import missing_getattr

__all__ = ["flatten_results_dict", "print_csv_format", "verify_results"]


def print_csv_format(results: Mapping) -> None:
    """Logs the main metrics of each task in lines that are easy to copy into a table.

    Args:
        results: task -> metric -> value. Metrics with a "-" in their name (those of single
            classes) are left out.
    """
    if not isinstance(results, Mapping):
        raise AssertionError(f"print_csv_format takes a dict of results, got {results!r}")
    logger = logging.getLogger(__name__)
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info("copypaste: %s=%s", task, metrics)
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info("copypaste: Task: %s", task)
        logger.info("copypaste: %s", ",".join(main))
        logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg, results: Mapping) -> bool:
    """Compares results with ``cfg.TEST.EXPECTED_RESULTS``: [[task, metric, value, tolerance], ...].

    Returns:
        True. A mismatch is logged and ends the process with exit status 1.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    if not len(expected):
        return True
    logger = logging.getLogger(__name__)
    failures = []
    for task, metric, value, tolerance in expected:
        actual = results.get(task, {}).get(metric)
        if actual is None or not np.isfinite(actual) or abs(actual - value) > tolerance:
            failures.append(f"{task}/{metric}: expected {value} +- {tolerance}, got {actual}")
    if failures:
        logger.error("Result verification failed!\n%s", "\n".join(failures))
        logger.error("Actual results: %s", pprint.pformat(results))
        sys.exit(1)
    logger.info("Results verification passed.")
    return True


def flatten_results_dict(results: Mapping) -> OrderedDict:
    """``{"a": {"b": 1}}`` -> ``{"a/b": 1}``, at any depth."""
    flat: OrderedDict = OrderedDict()
    for name, value in results.items():
        if isinstance(value, Mapping):
            for inner, inner_value in flatten_results_dict(value).items():
                flat[f"{name}/{inner}"] = inner_value
        else:
            flat[name] = value
    return flat


__getattr__ = missing_getattr(__name__)
