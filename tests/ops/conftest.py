"""What the tests of the ops share."""

import pytest

from mask2former.ops.libraries import (
    MASK_STRIPS,
    NEIGHBORHOOD_ATTENTION,
    TOKEN_LAYERS,
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


@pytest.fixture(params=[0, 1, 2], ids=["baseline", "avx2", "avx512"])
def token_kernel(request):
    """The same of token layers, with every instruction set that this machine has."""
    try:
        library = load("cpu", TOKEN_LAYERS)
    except MissingLibrary as error:
        pytest.skip(str(error))
    if library.mask2former_cpu_instruction_set(request.param) != request.param:
        pytest.skip("not on this machine")
    yield library
    library.mask2former_cpu_instruction_set(-1)
