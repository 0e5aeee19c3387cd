"""The Hungarian assignment of all predictions and images: one copy to the host, one back.

``torch.ops.mask2former.linear_sum_assignment`` is an op of ``torch.library`` with a fake kernel, so
that ``torch.compile`` sees a matcher as one graph although SciPy does its work on the host.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment as scipy_assignment
from torch import Tensor

from .errors import NonFiniteCostError

# Matched pairs of one image: query indices and target indices, int64 on the CPU, equally long.
Pairs = tuple[Tensor, Tensor]


def assign(matrices: Sequence[np.ndarray]) -> list[list[Pairs]]:
    """The assignments with the least total cost.

    Args:
        matrices: for each image costs [L, Q, n] of the L predictions.

    Returns:
        L times per image (query indices, ascending, and target indices), min(Q, n) of them.

    Raises:
        NonFiniteCostError: a cost is NaN or infinite.
    """
    _check_finite(matrices)
    layers = len(matrices[0]) if len(matrices) else 0
    return [[_assign_one(matrix[layer]) for matrix in matrices] for layer in range(layers)]


@torch.library.custom_op("mask2former::linear_sum_assignment", mutates_args=())
def linear_sum_assignment(costs: Tensor, counts: Tensor, pairs: int) -> Tensor:
    """:func:`assign` as an op of tensors, whose output size follows from its arguments.

    Args:
        costs: [L, G, Q] of the segments of image 0, then those of image 1, ...
        counts: int64 [B] on the CPU: segments n of each image, G in all.
        pairs: M, the sum over images of min(Q, n).

    Returns:
        int64 [3, L, M] on the device of the costs: image, query and segment (0 to G - 1) of each
        pair, image by image, each in the order of its queries.

    Raises:
        NonFiniteCostError: a cost is NaN or infinite.
    """
    on_host = costs.detach().cpu().numpy()  # the one copy
    ends = counts.cumsum(0).tolist()
    matrices = [m.transpose(0, 2, 1) for m in np.split(on_host, ends[:-1], axis=1)]
    starts = [0, *ends]
    columns = [
        torch.stack([torch.full_like(query, image), query, target + starts[image]])
        for of_image in assign(matrices)
        for image, (query, target) in enumerate(of_image)
    ]
    return torch.cat(columns, 1).view(3, len(costs), pairs).to(costs.device, non_blocking=True)


@linear_sum_assignment.register_fake
def _fake(costs: Tensor, counts: Tensor, pairs: int) -> Tensor:
    return costs.new_empty((3, costs.shape[0], pairs), dtype=torch.int64)


def layer_name(index: int) -> str:
    """How messages call the ``index``-th prediction in the order final, aux 0, aux 1, ..."""
    return "final" if index == 0 else f"aux {index - 1}"


def _assign_one(cost: np.ndarray) -> Pairs:
    query, target = scipy_assignment(cost)
    return torch.from_numpy(query.astype(np.int64)), torch.from_numpy(target.astype(np.int64))


def _check_finite(matrices: Sequence[np.ndarray]) -> None:
    bad = np.array([~np.isfinite(m).all(axis=(1, 2)) for m in matrices])  # [B, L]
    if bad.any():
        layers = [layer_name(int(i)) for i in np.flatnonzero(bad.any(axis=0))]
        raise NonFiniteCostError(layers, np.flatnonzero(bad.any(axis=1)).tolist())
