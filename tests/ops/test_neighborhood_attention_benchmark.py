"""The benchmark of neighbourhood attention gives no speed without parity."""

import pytest
import torch

from mask2former.ops import neighborhood_attention_benchmark as benchmark


@pytest.mark.parametrize("path", ["kernel", "tiled"])
def test_it_reports_parity_and_ratios(path, request):
    if path == "kernel":
        request.getfixturevalue("neighborhood_kernel")
    tensors = benchmark.stage_inputs(1, 11, 13, torch.float32, "cpu")
    result = benchmark.compare("tiny", path, tensors, 1, backward=True, rounds=3)
    assert result.lowest_ratio <= result.ratio <= result.highest_ratio
    assert result.worst_difference < 1e-5


def test_it_refuses_to_time_results_that_differ(monkeypatch):
    tensors = benchmark.stage_inputs(1, 11, 13, torch.float32, "cpu")
    right = benchmark.neighborhood_attention_2d

    def wrong(*args, path, **options):
        return right(*args, path=path, **options) * (1.1 if path == "tiled" else 1)

    monkeypatch.setattr(benchmark, "neighborhood_attention_2d", wrong)
    with pytest.raises(RuntimeError, match=r"tiled and reference differ by .*not timed"):
        benchmark.compare("tiny", "tiled", tensors, 1, backward=False, rounds=1)
