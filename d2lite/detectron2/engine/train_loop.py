"""One training step: plain, and with automatic mixed precision."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detectron2._missing import missing_getattr
from detectron2.utils.events import EventStorage, get_event_storage

from .base_trainer import HookBase, TrainerBase
from .step_metrics import StepMetrics

__all__ = [
    "AMPTrainer",
    "EventStorage",
    "HookBase",
    "SimpleTrainer",
    "TrainerBase",
    "get_event_storage",
]


class SimpleTrainer(TrainerBase):
    """One model, one loader, one optimizer: a model in training mode maps a batch to losses.

    Args:
        model: returns a dict of scalar losses, which are summed, or one scalar loss.
        data_loader: iterated endlessly; what it yields goes to the model.
        gather_metric_period: losses are collected from all ranks and stored every so many steps.
        zero_grad_before_forward: by default gradients are cleared between forward and backward.
        async_write_metrics: store a step's losses during the next step, so that the host never
            waits for the device. A non-finite loss is then noticed one step later.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self._data_loader_iter_obj: Iterator | None = None
        self._pending: StepMetrics | None = None

    def run_step(self) -> None:
        """Forward, backward, hooks' ``after_backward``, metrics, optimizer step.

        Raises:
            AssertionError: the model was left in evaluation mode.
            FloatingPointError: the total loss is infinite or NaN.
        """
        if not self.model.training:
            raise AssertionError(f"{type(self).__name__} found the model in evaluation mode")
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        loss_dict, losses = self._forward(data)
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(losses)
        self.after_backward()

        # On a GPU the values arrive while the optimizer's kernels are being launched.
        self._write_metrics(loss_dict, data_time)
        self._optimizer_step()
        if not self.async_write_metrics:
            self._flush_metrics()

    def _forward(self, data: Any) -> tuple[Mapping[str, Tensor], Tensor]:
        """The named losses and their sum."""
        loss_dict = self.model(data)
        if isinstance(loss_dict, Tensor):
            return {"total_loss": loss_dict}, loss_dict
        return loss_dict, sum(loss_dict.values())

    def _backward(self, losses: Tensor) -> None:
        losses.backward()

    def _optimizer_step(self) -> None:
        self.optimizer.step()

    @property
    def _data_loader_iter(self) -> Iterator:
        # Made at the first step: worker processes start only when they are needed.
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable]) -> None:
        """Replaces the loader; the old one is freed before the new one is built."""
        self._data_loader_iter_obj = None
        del self.data_loader
        self.data_loader = data_loader_builder()

    def _write_metrics(
        self,
        loss_dict: Mapping[str, Tensor],
        data_time: float,
        prefix: str = "",
        iter: int | None = None,
    ) -> None:
        """Starts collecting the losses, if it is this step's turn; stores those that have come."""
        self._flush_metrics()
        iteration = self.iter if iter is None else iter
        if (iteration + 1) % self.gather_metric_period != 0:
            return
        self._pending = StepMetrics(loss_dict, data_time, iteration, prefix)
        if self._pending.is_ready:
            # Nothing to wait for (always so on a CPU): a bad loss stops us before the step.
            self._flush_metrics()

    def _flush_metrics(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.write()

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Averages losses over ranks and puts them, their sum and the data time into the storage.

        Args:
            loss_dict: the same names on every rank.
            data_time: seconds this rank waited for data; the slowest rank's is stored as well.

        Raises:
            FloatingPointError: the sum is infinite or NaN.
        """
        StepMetrics(loss_dict, data_time, cur_iter, prefix).write()

    def after_train(self) -> None:
        self._flush_metrics()
        super().after_train()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """:class:`SimpleTrainer` with automatic mixed precision.

    On CUDA: autocast to ``precision``, with gradient scaling for float16. Elsewhere float16 is of
    no use, so: bfloat16 autocast where the CPU has instructions for it; else float32, which a
    warning says once.

    Args:
        grad_scaler: default ``torch.amp.GradScaler("cuda")``; disabled unless float16 is used.
        precision: ``torch.float16`` or ``torch.bfloat16``.
        log_grad_scaler: put the scale into the storage as ``[metric]grad_scaler``.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
        )
        device = next(model.parameters()).device.type
        self.precision = choose_precision(device, precision)
        self.log_grad_scaler = log_grad_scaler
        self._device_type = device
        if grad_scaler is None or device != "cuda":
            scaling = self.precision is torch.float16
            grad_scaler = torch.amp.GradScaler("cuda", enabled=scaling and device == "cuda")
        self.grad_scaler = grad_scaler

    def _autocast(self) -> AbstractContextManager:
        if self.precision is torch.float32:
            return nullcontext()
        return torch.autocast(self._device_type, dtype=self.precision)

    def _forward(self, data: Any) -> tuple[Mapping[str, Tensor], Tensor]:
        with self._autocast():
            return super()._forward(data)

    def _backward(self, losses: Tensor) -> None:
        self.grad_scaler.scale(losses).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _optimizer_step(self) -> None:
        # step() unscales the gradients first, so clipping inside the optimizer sees true values.
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # Empty when the checkpoint was written where nothing was scaled (CPU, bfloat16).
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def choose_precision(device_type: str, wanted: torch.dtype) -> torch.dtype:
    """What autocast shall use on a device: ``wanted``, bfloat16, or float32 for "no autocast"."""
    if device_type == "cuda":
        return wanted
    logger = logging.getLogger(__name__)
    if device_type == "cpu" and _cpu_has_bfloat16():
        logger.info("Mixed precision on this CPU: bfloat16 autocast")
        return torch.bfloat16
    logger.warning(
        "SOLVER.AMP.ENABLED asks for mixed precision, which this %s cannot do fast; "
        "training goes on in float32",
        device_type,
    )
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AMX or AVX512-BF16); emulation is slower."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in probes)


__getattr__ = missing_getattr(__name__)
