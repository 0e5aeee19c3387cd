"""Measurements behind ``tools/benchmark.py``: ratios of alternating rounds, never without parity.

`cli` finds the subcommands, one module each in `commands`; `timing` and `machine` serve them all.
"""
