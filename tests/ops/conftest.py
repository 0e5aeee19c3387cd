"""What the tests of the ops share."""

import pytest

from mask2former.ops.libraries import MissingLibrary, load


@pytest.fixture
def cpu_kernel():
    """Skips, visibly, where the C++ kernel was not built."""
    try:
        return load("cpu")
    except MissingLibrary as error:
        pytest.skip(str(error))
