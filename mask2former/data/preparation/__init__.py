"""Turns downloaded data sets into the layouts that the registrations read.

The scripts ``datasets/prepare_*.py`` are declarations of arguments around this package: `command`
has what they share on the command line, `parallel` runs work in processes with a progress bar and
takes up interrupted runs, `files` writes without leaving halves. The other modules know one data
set or one coding each.
"""

from .command import Options, PreparationError, for_splits, make_parser, run

__all__ = ["Options", "PreparationError", "for_splits", "make_parser", "run"]
