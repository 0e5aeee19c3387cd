"""The benchmark gives no speed without parity."""

import pytest
import torch

from mask2former.ops import benchmark

pytestmark = pytest.mark.usefixtures("cpu_kernel")
TINY = ((2, 3), (4, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_reports_parity_and_ratios(dtype):
    arguments = benchmark.encoder_inputs(TINY, heads=2, depth=8, dtype=dtype)
    result = benchmark.compare("tiny", arguments, backward=True, rounds=3)
    assert result.lowest_ratio <= result.ratio <= result.highest_ratio
    assert str(result).startswith("tiny: parity ")


def test_it_refuses_to_time_results_that_differ():
    arguments = benchmark.encoder_inputs(TINY, heads=2, depth=8)
    with pytest.raises(RuntimeError, match=r"differ by .*not timed"):
        benchmark.compare("tiny", arguments, backward=False, tolerance=1e-12)
