"""Keeps tracebacks of user errors out of the log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import USER_ERRORS, message_of

# Where detectron2 logs "Exception during training" with the traceback.
_TRAIN_LOOP = ("detectron2.engine.train_loop", "detectron2.engine.base_trainer")


class _OneLine(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, USER_ERRORS):
            record.msg, record.args = f"Training stopped: {message_of(error)}", ()
            record.exc_info = record.exc_text = None
        return True


@contextmanager
def one_line_user_errors() -> Iterator[None]:
    """Inside, an exception that is the user's to mend is logged as its message only."""
    one_line = _OneLine()
    loggers = [logging.getLogger(name) for name in _TRAIN_LOOP]
    for log in loggers:
        log.addFilter(one_line)
    try:
        yield
    finally:
        for log in loggers:
            log.removeFilter(one_line)
