"""What the machine could do at best: its speed in large matrix products, measured beside."""

from collections.abc import Callable

import torch

_SIDE = {"cpu": 1536, "cuda": 8192}


def matrix_product(device: str, dtype: str) -> tuple[Callable[[], None], int]:
    """A large product to time, and the operations of it (a multiply-add is two)."""
    kind = device.partition(":")[0]
    side = _SIDE.get(kind, 2048)
    a, b = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(a)

    def product() -> None:
        torch.mm(a, b, out=out)
        if kind == "cuda":
            torch.cuda.synchronize()

    return product, 2 * side**3
