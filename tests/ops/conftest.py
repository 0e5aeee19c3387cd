"""What the tests of the ops share."""

import pytest

from mask2former.ops.libraries import (
    MASK_STRIPS,
    NEIGHBORHOOD_ATTENTION,
    MissingLibrary,
    load,
)


@pytest.fixture
def cpu_kernel():
    """Skips, visibly, where the C++ kernel was not built."""
    try:
        return load("cpu")
    except MissingLibrary as error:
        pytest.skip(str(error))


@pytest.fixture
def neighborhood_kernel():
    """The same of neighbourhood attention."""
    try:
        return load("cpu", NEIGHBORHOOD_ATTENTION)
    except MissingLibrary as error:
        pytest.skip(str(error))


@pytest.fixture
def strips_kernel():
    """The same of post-processing."""
    try:
        return load("cpu", MASK_STRIPS)
    except MissingLibrary as error:
        pytest.skip(str(error))
