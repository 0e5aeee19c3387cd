"""EventStorage: where a training loop and its model put scalars, images and histograms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

_STORAGE_STACK: list[EventStorage] = []


def get_event_storage() -> EventStorage:
    """The innermost EventStorage whose ``with`` block is active.

    Raises:
        AssertionError: there is none.
    """
    if not _STORAGE_STACK:
        raise AssertionError(
            "get_event_storage() has to be called inside a 'with EventStorage(...)' block "
            "(a running trainer opens one)"
        )
    return _STORAGE_STACK[-1]


def has_event_storage() -> bool:
    """Whether a ``with EventStorage(...)`` block is active."""
    return bool(_STORAGE_STACK)


class EventStorage:
    """Histories of named scalars, and pending images and histograms, by iteration."""

    def __init__(self, start_iter: int = 0) -> None:
        """
        Args:
            start_iter: iteration (counted from 0) at which the storage starts.
        """
        self._history: defaultdict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._smoothing_hints: dict[str, bool] = {}
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._iter = start_iter
        self._current_prefix = ""
        self._vis_data: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []

    # -- writing ---------------------------------------------------------------------------

    def put_scalar(
        self,
        name: str,
        value: float | torch.Tensor,
        smoothing_hint: bool = True,
        cur_iter: int | None = None,
    ) -> None:
        """Add a value to the history of ``name``.

        Args:
            value: anything ``float()`` takes.
            smoothing_hint: whether writers should show a median over a window rather than the
                latest value; must be the same for all values of a name.
            cur_iter: iteration of the value; default: the current one.

        Raises:
            AssertionError: the hint differs from the one given before.
        """
        name = self._current_prefix + name
        iteration = self._iter if cur_iter is None else cur_iter
        value = float(value)
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        if hint != smoothing_hint:
            raise AssertionError(
                f"Scalar {name} was put with smoothing_hint={hint} before, now {smoothing_hint}"
            )
        self._history[name].update(value, iteration)
        self._latest_scalars[name] = (value, iteration)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any
    ) -> None:
        """``put_scalar`` for several names: ``put_scalars(loss=0.1, accuracy=0.9)``."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep an image for the writers: [C, H, W] (or any layout the writer takes), RGB,
        uint8 in 0..255 or float in 0..1."""
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Keep a histogram of all values of ``hist_tensor`` for the writers."""
        values = hist_tensor.detach().float().cpu()
        low, high = values.min().item(), values.max().item()
        counts = torch.histc(values, bins=bins)
        edges = torch.linspace(low, high, steps=bins + 1)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": values.numel(),
                "sum": float(values.sum()),
                "sum_squares": float((values**2).sum()),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": counts.tolist(),
                "global_step": self._iter,
            }
        )

    def clear_images(self) -> None:
        """Forget the kept images; a writer calls this once it has written them."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        self._histograms = []

    # -- reading ---------------------------------------------------------------------------

    def history(self, name: str) -> HistoryBuffer:
        """The history of a scalar.

        Raises:
            KeyError: nothing was put under this name.
        """
        if name not in self._history:
            raise KeyError(f"No history of a scalar named {name}")
        return self._history[name]

    def histories(self) -> Mapping[str, HistoryBuffer]:
        """All histories, in the order of their first value."""
        return self._history

    def latest(self) -> Mapping[str, tuple[float, int]]:
        """name -> (latest value, its iteration)."""
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like :meth:`latest`, but the median over a window where the hint asks for it.

        Args:
            window_size: in iterations.
        """
        result = {}
        for name, (value, iteration) in self._latest_scalars.items():
            if self._smoothing_hints[name]:
                samples = self.count_samples(name, window_size)
                value = float(self._history[name].median(samples))
            result[name] = (value, iteration)
        return result

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of ``name`` belong to the last ``window_size`` iterations.

        Scalars that are put every k-th iteration only have fewer; at least 1 is returned.
        """
        data = self._history[name].values()
        newest = data[-1][1]
        count = 0
        for _, iteration in reversed(data):
            if iteration <= newest - window_size or count == window_size:
                break
            count += 1
        return max(count, 1)

    def smoothing_hints(self) -> Mapping[str, bool]:
        """name -> whether the scalar is noisy and better shown smoothed."""
        return self._smoothing_hints

    # -- iteration, scopes -----------------------------------------------------------------

    def step(self) -> None:
        """Go to the next iteration. Trainers set :attr:`iter` instead."""
        self._iter += 1

    @property
    def iter(self) -> int:
        """The current iteration."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """Old name of :attr:`iter`."""
        return self._iter

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Within the block, scalars are put as ``<name>/<scalar>``."""
        old = self._current_prefix
        self._current_prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = old

    def __enter__(self) -> EventStorage:
        _STORAGE_STACK.append(self)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if not _STORAGE_STACK or _STORAGE_STACK[-1] is not self:
            raise AssertionError("'with EventStorage' blocks were left in the wrong order")
        _STORAGE_STACK.pop()
