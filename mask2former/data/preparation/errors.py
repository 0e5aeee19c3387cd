"""What a person who prepares a data set can mend."""

from mask2former.data.errors import DataError


class PreparationError(DataError):
    """The message names file or folder and the remedy."""


class MissingInput(PreparationError, FileNotFoundError):
    """Files or folders of the download are not where they are expected.

    Attributes:
        what: which.
        remedy: where they are to be had.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}".rstrip(" .") + "."
