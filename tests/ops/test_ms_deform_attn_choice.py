"""Which implementation runs, and what is said when there is none or the arguments are wrong."""

import importlib.util
import logging

import pytest
import torch
from deform_attn_cases import make_inputs

from mask2former.ops import implementation, libraries, ms_deform_attn, use_implementation


@pytest.fixture
def no_libraries(monkeypatch, tmp_path):
    """As if nothing had been built."""
    monkeypatch.setattr(libraries, "FOLDER", tmp_path)
    monkeypatch.setattr(implementation, "_already_said", set())
    libraries.load.cache_clear()
    yield tmp_path
    libraries.load.cache_clear()


def test_without_a_library_the_reference_runs_and_says_so_once(no_libraries, caplog):
    inputs = make_inputs()
    with caplog.at_level(logging.WARNING):
        outputs = [inputs.run("auto") for _ in range(3)]
    torch.testing.assert_close(outputs[0], inputs.run("reference"))
    (message,) = [record.getMessage() for record in caplog.records]
    assert "libms_deform_attn_cpu.so has not been built" in message
    assert "python build_ops.py" in message
    assert "slower" in message


def test_without_a_library_compiled_code_says_so_too(no_libraries, caplog):
    inputs = make_inputs()
    compiled = torch.compile(ms_deform_attn, fullgraph=True, backend="eager")
    with caplog.at_level(logging.WARNING):
        compiled(inputs.value, inputs.shapes, None, inputs.locations, inputs.attention)
    assert [r.name for r in caplog.records].count("mask2former.ops.implementation") == 1


def test_a_kernel_that_is_demanded_but_missing_is_an_error(no_libraries):
    with pytest.raises(RuntimeError, match=r"has not been built.*build_ops\.py"):
        make_inputs().run("kernel")


def test_a_library_that_cannot_be_loaded_counts_as_missing(no_libraries):
    libraries.library_path("cpu").write_bytes(b"no library")
    with pytest.raises(RuntimeError, match=r"cannot be loaded"):
        make_inputs().run("kernel")


def test_a_library_of_another_version_counts_as_missing(cpu_kernel, monkeypatch):
    monkeypatch.setattr(libraries, "ABI", libraries.ABI + 1)
    libraries.load.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"another version.*build_ops\.py"):
            make_inputs().run("kernel")
    finally:
        libraries.load.cache_clear()


def test_a_failure_inside_a_kernel_is_an_error(cpu_kernel, monkeypatch):
    """It neither vanishes nor turns into the reference's answer."""

    class Broken:
        def ms_deform_attn_cpu_forward(self, *_):
            raise OSError("the kernel broke")

    monkeypatch.setattr("mask2former.ops.kernels.load", lambda device: Broken())
    with pytest.raises(OSError, match="the kernel broke"):
        make_inputs().run("auto")


def test_the_mode_lasts_as_long_as_its_block():
    with pytest.raises(KeyError), use_implementation("reference"):
        assert not implementation.use_kernel("cpu")
        raise KeyError
    assert implementation._mode == "auto"


def test_an_unknown_mode_is_refused():
    with (
        pytest.raises(ValueError, match=r"MASK2FORMER_OPS.*auto, reference, kernel.*'fast'"),
        use_implementation("fast"),
    ):
        pass


def test_the_environment_variable_chooses(monkeypatch):
    monkeypatch.setenv("MASK2FORMER_OPS", "reference")
    spec = importlib.util.spec_from_file_location("a_fresh_copy", implementation.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert not fresh.use_kernel("cpu")


WRONG = {
    "value": (lambda i: setattr(i, "value", i.value[0]), r"value must be.*\(30, 2, 6\)"),
    "integers": (lambda i: setattr(i, "value", i.value.int()), r"value must be.*torch\.int32"),
    "shapes": (
        lambda i: setattr(i, "shapes", [(4, 6), (2, 2)]),
        r"spatial_shapes \[\(4, 6\), \(2, 2\)\] hold 28 positions, but value .* has 30",
    ),
    "empty level": (lambda i: setattr(i, "shapes", [(5, 6), (0, 3)]), r"spatial_shapes"),
    "no level": (lambda i: setattr(i, "shapes", []), r"spatial_shapes"),
    "heads": (
        lambda i: setattr(i, "attention", i.attention[:, :, :1]),
        r"attention_weights must be \[batch=2, queries, heads=2, levels=2, points\], got",
    ),
    "points": (
        lambda i: setattr(i, "locations", i.locations[..., :2, :]),
        r"sampling_locations must be \(2, 5, 2, 2, 3, 2\).*got \(2, 5, 2, 2, 2, 2\)",
    ),
    "dtype": (
        lambda i: setattr(i, "attention", i.attention.long()),
        r"attention_weights must be floating",
    ),
    "device": (
        lambda i: setattr(i, "locations", i.locations.to("meta")),
        r"sampling_locations must be .* device of value \(cpu\).*meta",
    ),
}


@pytest.mark.parametrize("mode", ["auto", "reference"])
@pytest.mark.parametrize("spoil,message", WRONG.values(), ids=WRONG.keys())
def test_arguments_that_do_not_fit_are_named(spoil, message, mode):
    inputs = make_inputs()
    spoil(inputs)
    with pytest.raises(ValueError, match=message):
        inputs.run(mode)


@pytest.mark.parametrize("starts", [[0, 20], torch.tensor([1, 24])], ids=["ints", "tensor"])
def test_level_starts_that_contradict_the_shapes_are_refused(starts):
    i = make_inputs()
    with pytest.raises(ValueError, match=r"level_start_index must be \[0, 24\]"):
        ms_deform_attn(i.value, i.shapes, starts, i.locations, i.attention)
