"""Errors that are the user's to mend: shown as one line, without a traceback."""


class UserError(Exception):
    """The message names the key or file and the remedy. Scripts end with it and exit status 2."""


class ConfigError(UserError):
    """A setting is wrong or does not fit the data set or the machine. The same on every rank."""


class WeightsError(UserError):
    """The weights file is missing, unreadable or belongs to another architecture."""


class TrainingDiverged(UserError, FloatingPointError):
    """A loss or a matching cost is NaN or infinite."""
