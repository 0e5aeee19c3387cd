"""Subcommands of ``tools/benchmark.py``.

A module here is one: its name is the subcommand, its docstring the help (the first line in the
list), ``add_arguments(parser)`` and ``run(args) -> int`` (exit status) do the rest. Import what is
slow to import inside ``run``.
"""
