"""Times and memory of several implementations, measured and printed."""

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from ..timing import Spread, alternate
from .peak import matrix_product
from .peak_memory import extra_mebibytes
from .setting import Setting

WARMUPS = 2


def timing_lines(
    subjects: dict[str, Callable], rounds: int, setting: Setting, operations: int = 0
) -> dict[str, Any]:
    """Alternates the subjects, of which the first is ours, with a matrix product.

    Args:
        operations: of ours; with them, its share of the speed of that product is printed.

    Returns:
        for JSON: seconds, ratios (the others over ours), fraction of the peak.
    """
    product, product_operations = matrix_product(setting.device, setting.dtype)
    with tqdm(total=rounds + WARMUPS, unit="round", leave=False, disable=None) as bar:
        measured = alternate(
            {**subjects, "product": product},
            rounds=rounds,
            warmups=WARMUPS,
            after_round=bar.update,
        )
    ours = next(iter(subjects))
    results: dict[str, Any] = {"seconds": measured.seconds, "ratios": {}}
    for name in subjects:
        seconds = Spread.of(measured.seconds[name])
        line = f"  {name:<22} {seconds.median * 1e3:9.1f} ms"
        if name != ours:
            ratio = measured.ratio(name, ours)
            results["ratios"][name] = ratio.as_dict()
            line += f"   ours is {in_words(ratio)} as fast"
        print(line)
    if operations:
        products = measured.ratio("product", ours)  # per round, cancels the machine's load
        scale = operations / product_operations
        share = Spread(products.median * scale, products.low * scale, products.high * scale)
        results |= {"operations": operations, "fraction_of_peak": share.as_dict()}
        speed = product_operations / Spread.of(measured.seconds["product"]).median
        print(
            f"  {operations / 1e9:.1f} G operations: {share.median:.2f} ({share.low:.2f}-"
            f"{share.high:.2f}) of what matrix products reach, {speed / 1e9:.0f} G a second"
        )
    return results


def memory_lines(make: Callable, kinds: list[str], setting: Setting) -> dict[str, float]:
    """Peak memory above the loaded model, MiB."""
    extra = {
        kind: extra_mebibytes(make, kind, setting)
        for kind in tqdm(kinds, leave=False, disable=None)
    }
    ours = extra[kinds[0]]
    for kind, value in extra.items():
        line = f"  {kind:<22} {value:9.0f} MiB above the loaded model"
        if kind != kinds[0]:
            line += f"; ours needs {ours / max(value, 1e-9):.2f} of it"
        print(line)
    return extra


def in_words(ratio: Spread) -> str:
    """``2.31x (2.20-2.40)``"""
    return f"{ratio.median:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})"
