"""Errors of data that its owner can mend."""


class DataError(ValueError):
    """Names the file or key and the remedy. Scripts show it as one line, without a traceback."""
