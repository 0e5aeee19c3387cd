"""The browser demo: `segmenter` predicts, `results` makes tables and files, `app` is the page."""

from .app import build_app
from .results import Result
from .segmenter import Segmenter

__all__ = ["Result", "Segmenter", "build_app"]
