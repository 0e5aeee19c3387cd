"""Errors that are the user's to mend: shown as one line, without a traceback."""

from mask2former.data.dataset_mappers.reading import ImageDecodeError
from mask2former.data.errors import DataError
from mask2former.evaluation.errors import EvaluationError
from mask2former.modeling.errors import BackboneError, CompilerError


class UserError(Exception):
    """The message names the key or file and the remedy. Scripts end with it and exit status 2."""


class ConfigError(UserError):
    """A setting is wrong or does not fit the data set or the machine. The same on every rank."""


class WeightsError(UserError):
    """The weights file is missing, unreadable or belongs to another architecture."""


class CheckpointError(UserError, OSError):
    """A checkpoint cannot be written: no space, no permission."""


class TrainingDiverged(UserError, FloatingPointError):
    """A loss or a matching cost is NaN or infinite."""


# All errors of the package that name what the user can mend.
USER_ERRORS = (
    UserError,
    ImageDecodeError,
    DataError,
    EvaluationError,
    BackboneError,
    CompilerError,
)


def message_of(error: Exception) -> str:
    """The message of a user error, also of one that a loader's worker process passed on."""
    text = str(error).strip()
    if "\nOriginal Traceback" in text:
        # torch puts the worker's traceback into the message; its last line is "<type>: <message>".
        text = text.splitlines()[-1].partition(": ")[2]
    return text
