"""Calls the compiled kernels that post-process masks on a CPU, a strip of rows at a time.

Each does in one pass over a strip what takes PyTorch several; the readable code, which they are
tested against, is where they are called (``mask2former/modeling/postprocessing``).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2former.ops.implementation import use_kernel
from mask2former.ops.libraries import MASK_STRIPS, load

# The kernels' widest vectors, and the classes that they sum at a time.
LANES, GROUP = 16, 6
# With more taps than this a matrix product is as good.
MOST_TAPS = 16


def applies(*tensors: Tensor) -> bool:
    """Whether the kernels can work on these tensors and are wanted: float32, on a CPU, no graph."""
    if torch.compiler.is_compiling():
        return False
    for tensor in tensors:
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            return False
        if tensor.requires_grad and torch.is_grad_enabled():
            return False
    return use_kernel("cpu", MASK_STRIPS)


@dataclass(frozen=True)
class Taps:
    """A banded matrix [target, source]: the sources of each target, one after another.

    Attributes:
        count: weights of each target.
        first: int32 [target], first source; ascending.
        weights: float32 [target, count].
    """

    count: int
    first: Tensor
    weights: Tensor

    @classmethod
    def of(cls, matrix: Tensor, first: list[int], last: list[int]) -> Taps:
        """From the matrix and the half-open range of what is not zero in each of its rows."""
        start = torch.tensor(first).flip(0).cummin(0).values.flip(0)
        count = int((torch.tensor(last) - start).max())
        # All have as many: the last ones begin earlier, at weights of zero.
        start = start.clamp(max=matrix.shape[1] - count)
        weights = matrix.gather(1, start[:, None] + torch.arange(count))
        return cls(count, start.int(), weights.contiguous())

    def from_row(self, start: int) -> Taps:
        """The same of sources that begin at ``start``; targets that need earlier ones are void."""
        return Taps(self.count, self.first - start, self.weights)

    def for_columns(self) -> Taps:
        """As the kernel wants columns: weights [count, target], targets padded to whole vectors."""
        more = -len(self.first) % LANES
        first = torch.cat([self.first, self.first[-1:].expand(more)])
        weights = torch.nn.functional.pad(self.weights.T, (0, more))
        return Taps(self.count, first, weights.contiguous())


def resize(
    masks: Tensor, rows: Taps, columns: Taps, part: slice, width: int, sigmoid: bool
) -> Tensor:
    """Some rows of resized masks.

    Args:
        masks: float32 [N, h, w].
        rows: of the whole height.
        columns: from :meth:`Taps.for_columns`.
        part: rows of the output.
        sigmoid: of logits, gives probabilities.

    Returns:
        float32 [N, rows, width].
    """
    if masks.stride(2) != 1:
        masks = masks.contiguous()
    output = masks.new_empty(len(masks), part.stop - part.start, width)
    sizes = (len(masks), masks.shape[2], *output.shape[1:], rows.count, columns.count)
    _call(
        "resize",
        (*sizes, len(columns.first), *masks.stride()[:2]),
        masks,
        rows.first[part],
        rows.weights[part],
        columns.first,
        columns.weights,
        output,
        sigmoid,
    )
    return output


def foreground(
    probs: Tensor, index: Tensor, masks: Tensor, areas: Tensor, confidence: Tensor
) -> None:
    """Takes a strip of instances: where probabilities exceed 0.5.

    Args:
        probs: float32 [N, rows, W].
        index: which of them, int64 [M].
        masks: bool [M, rows, W], rows of a whole map; filled.
        areas, confidence: float32 [M]; pixels and their sum of probabilities are added.
    """
    sizes = (len(index), probs[0].numel(), masks.stride(0))
    _call("foreground", sizes, probs.contiguous(), index, masks, areas, confidence)


def winners(
    probs: Tensor, index: Tensor, scores: Tensor, winner: Tensor, inside: Tensor, areas: Tensor
) -> None:
    """Takes a strip of a panoptic map: who wins each pixel.

    Args:
        probs: float32 [N, rows, W].
        index: who takes part, int64 [M].
        scores: float32 [M]; the greatest score x probability wins.
        winner: int16 [rows, W], filled with the rank in ``index``.
        inside: bool [rows, W], filled: whether the winner's probability is at least 0.5.
        areas: int64 [3, M]; pixels of the mask, pixels won, and both at once are added.
    """
    sizes = (len(index), winner.numel())
    scores = scores.contiguous()
    _call("winners", sizes, probs.contiguous(), index, scores, winner, inside, areas)


def argmax(scores: Tensor) -> Tensor:
    """The first best of scores, float32 [K, H, W] with K < 32768, of each pixel: int16 [H, W]."""
    best = torch.empty(scores.shape[1:], dtype=torch.int16)
    _call("argmax", (len(scores), best.numel()), scores.contiguous(), best)
    return best


class BestClass:
    """The best class of pixels, mostly without the scores of classes that cannot win.

    Classes that all queries together believe in most are looked at first. In a pixel of
    probabilities m, no other one scores more than the sum over queries q of m[q] times the most
    that q believes in any other; a block of pixels where that never suffices is done.

    Args:
        by_class: class probabilities, float32 [K, Q], not negative, K < 32768.
    """

    FIRST = 3 * GROUP - 1

    def __init__(self, by_class: Tensor) -> None:
        self.queries = by_class.shape[1]
        order = by_class.sum(1).argsort(descending=True)
        first, rest = order[: self.FIRST], order[self.FIRST :]
        self.first_groups = 0  # none: all classes are looked at
        names, rows = order, by_class[order]
        if len(rest):
            self.first_groups = (self.FIRST + 1) // GROUP
            bound = by_class[rest].amax(0, keepdim=True)
            names = torch.cat([first, first.new_tensor([-1]), rest])
            rows = torch.cat([by_class[first], bound, by_class[rest]])
        more = -len(names) % GROUP
        self.names = torch.nn.functional.pad(names, (0, more), value=-1).int()
        rows = torch.nn.functional.pad(rows, (0, 0, 0, more))
        self.weights = rows.unflatten(0, (-1, GROUP)).transpose(1, 2).contiguous()

    def __call__(self, probs: Tensor, best: Tensor) -> None:
        """Mask probabilities, float32 [Q, P], to classes ``best``, int16 [P]."""
        sizes = (self.queries, probs.shape[1], len(self.weights), self.first_groups)
        _call("best_class", sizes, probs.contiguous(), self.weights, self.names, best)


def _call(name: str, sizes: tuple[int, ...], *arguments: Tensor | bool) -> None:
    function = getattr(load("cpu", MASK_STRIPS), f"{MASK_STRIPS}_cpu_{name}")
    given = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    function((ctypes.c_int64 * len(sizes))(*sizes), *given, torch.get_num_threads())
