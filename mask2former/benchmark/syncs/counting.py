"""Counts how often the host waits for the device, on a GPU or on a device that is none."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mask2former.benchmark.networks.setting import Setting

from . import pretend_device
from .pretend_device import Wait
from .subjects import STEPS

# Calls of CUDA's runtime with which the host waits. Copies to the host are followed by the first.
_WAITING_CALLS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_WATCHED = "watched step"


@dataclass(frozen=True)
class Waits:
    """Of one step, after steps that filled caches.

    Args:
        number: how often the host waited.
        places: what is known about where; on a GPU without waits for events.
        calls: on a GPU, the runtime's waiting calls and copies by name; empty where the profiler
            sees none.
    """

    number: int
    places: list[Wait]
    calls: dict[str, int]


def count(subject: str, setting: Setting, warmups: int = 2) -> Waits:
    """Of ``"inference"`` or ``"training"``; on the CPU with :mod:`.pretend_device`."""
    if setting.device.startswith("cuda"):
        return _on_a_gpu(STEPS[subject](setting), warmups)
    with pretend_device.watching() as watched:
        step = STEPS[subject](setting, _elsewhere)
        for _ in range(warmups):
            step()
        watched.waits.clear()
        step()
        return Waits(len(watched.waits), list(watched.waits), {})


def _elsewhere(what: nn.Module | Tensor) -> nn.Module | Tensor:
    if isinstance(what, nn.Module):
        return pretend_device.move(what)
    return pretend_device.Elsewhere(what)


def _on_a_gpu(step: Callable[[], object], warmups: int) -> Waits:
    for _ in range(warmups):
        step()
    torch.cuda.synchronize()
    places = _warned_places(step)
    torch.cuda.synchronize()
    calls = _runtime_calls(step)
    waited = sum(number for name, number in calls.items() if name in _WAITING_CALLS)
    return Waits(max(waited, len(places)), places, calls)


def _warned_places(step: Callable[[], object]) -> list[Wait]:
    """Where PyTorch says that it waits."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [
        Wait(
            "PyTorch waits", re.sub(r".*(mask2former|detectron2)/", "", f"{w.filename}:{w.lineno}")
        )
        for w in caught
        if "synchronizing" in str(w.message)
    ]


def _runtime_calls(step: Callable[[], object]) -> dict[str, int]:
    """Waiting calls and copies to the host within a step, from the profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        with torch.profiler.record_function(_WATCHED):
            step()
        torch.cuda.synchronize()  # outside of what is watched: the profiler needs complete events
    return _calls_within(profile.events())


def _calls_within(events) -> dict[str, int]:
    # The host's range of that name; the device has one of its own, which begins later.
    ranges = [e.time_range for e in events if e.name == _WATCHED]
    window = min(ranges, key=lambda r: r.start)
    calls: dict[str, int] = {}
    for event in events:
        is_copy = event.name.startswith("Memcpy DtoH")
        if not is_copy and event.name not in _WAITING_CALLS:
            continue
        if is_copy or window.start <= event.time_range.start <= window.end:
            calls[event.name] = calls.get(event.name, 0) + 1
    return calls
