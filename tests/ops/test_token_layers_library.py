"""Where token layers find their matrix products, and what happens where they do not."""

import ctypes
import sys

import pytest
import torch

from mask2former.ops import libraries, token_layers
from mask2former.ops.libraries import TOKEN_LAYERS, MissingLibrary, load, torch_blas


def test_a_torch_without_sgemm_is_a_missing_library(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(MissingLibrary, match="no sgemm"):
        torch_blas.__wrapped__()


def test_machines_that_write_numbers_the_other_way_round_have_none(monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(MissingLibrary, match="little-endian"):
        torch_blas.__wrapped__()


@pytest.mark.parametrize("missing", ["sgemm_pack_", "sgemm_compute_", "sgemm_pack_get_size_"])
def test_weights_are_packed_with_all_of_mkls_functions_or_none(monkeypatch, missing):
    real = ctypes.CDLL

    class Library:
        def __init__(self, path):
            self.library = real(path)

        def __getattr__(self, name):
            if name == missing:
                raise AttributeError(name)
            return self.library.sgemm_

    monkeypatch.setattr(libraries.ctypes, "CDLL", Library)
    blas = torch_blas.__wrapped__()
    assert blas[0]
    assert list(blas)[1:] == [None, None, None]


def test_a_library_without_sgemm_is_not_used(monkeypatch):
    def none():
        raise MissingLibrary("this build of torch shows no sgemm")

    monkeypatch.setattr(libraries, "torch_blas", none)
    if libraries.library_path("cpu", TOKEN_LAYERS).exists():
        with pytest.raises(MissingLibrary, match="no sgemm"):
            load.__wrapped__("cpu", TOKEN_LAYERS)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.bfloat16),
        torch.zeros(1, device="meta"),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, 2).to_sparse_csr(),
        torch.zeros(2, dtype=torch.complex64).conj().imag,  # negated by whoever reads it
        torch.zeros(1).as_subclass(type("Subclass", (torch.Tensor,), {})),
    ],
    ids=["float64", "bfloat16", "meta", "sparse", "sparse rows", "negated", "subclass"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_tensors_that_kernels_cannot_read(x):
    with torch.no_grad():
        assert not token_layers.applies(x, layers=())
