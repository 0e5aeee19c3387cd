"""Paths that the engine's tests share."""

from pathlib import Path

REPO = Path(__file__).parent.parent.parent
TINY = str(REPO / "tests" / "fixtures" / "engine" / "tiny.yaml")
