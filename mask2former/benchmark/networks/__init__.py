"""Whole networks under measurement: the same weights in several implementations.

`setting` says what is measured, `building` makes the models, `inference` and `training` the calls
that are timed, `parity` compares their results, `peak_memory` runs one of them in its own process.
"""
