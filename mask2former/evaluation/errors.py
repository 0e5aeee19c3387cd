"""Errors of an evaluation that the user can mend."""


class EvaluationError(ValueError):
    """Predictions and ground truth do not belong together; the message names what and where."""
