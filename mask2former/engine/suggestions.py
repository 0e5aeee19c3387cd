"""Nearest names, for messages about misspelt ones."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """``"; nearest: a, b"`` for the most similar known names, or an empty string."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    return f"; nearest: {', '.join(by_lower[c] for c in close)}" if close else ""
