"""One optimisation step, in the precision the config asks for and the machine can do."""

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import torch
from torch import nn

from detectron2.engine import SimpleTrainer
from mask2former.maskformer_model import unpaired

from .errors import TrainingDiverged


class TrainStep(SimpleTrainer):
    """Forward, losses, backward, step: detectron2's SimpleTrainer and AMPTrainer in one.

    Unlike AMPTrainer it also runs on CPU, with bfloat16 and without autocast. Non-finite costs and
    losses end in one message that says where and what on.

    Args:
        model: maps a batch (list of dicts) to a dict of scalar losses.
        data_loader: yields batches for ever; it may be None until the first step.
        dtype: autocast type, None for float32. float16 comes with loss scaling.
        after_backward: called between backward and the optimizer's step.

    Attributes:
        grad_scaler: as AMPTrainer's; disabled, unless ``dtype`` is float16.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable | None,
        optimizer: torch.optim.Optimizer,
        *,
        dtype: torch.dtype | None = None,
        after_backward: Callable[[], None] | None = None,
    ):
        # detectron2 0.6 asks for an iterator at once; an empty one stands in for the loader.
        super().__init__(model, (), optimizer)
        self.data_loader = data_loader
        self._device_type = next(model.parameters()).device.type
        self._dtype = dtype
        self._after_backward = after_backward
        # Disabled, the scaler passes everything through.
        self.grad_scaler = torch.amp.GradScaler(self._device_type, enabled=dtype is torch.float16)
        self._batches = None

    def start_loading(self) -> None:
        """Starts the loader's workers, so that they draw their seeds now and not in a step."""
        if self._batches is None:
            self._batches = iter(self.data_loader)

    @property
    def _data_loader_iter(self) -> Iterator:
        """The batches, under the name that trainers with a run_step of their own take them by."""
        self.start_loading()
        return self._batches

    @_data_loader_iter.setter
    def _data_loader_iter(self, batches: Iterator) -> None:  # detectron2 0.6, in its constructor
        self._batches = batches

    def run_step(self) -> None:
        """One iteration; the host waits for the device once, at the end, to read the losses.

        Raises:
            TrainingDiverged: a matching cost or a loss is NaN or infinite.
        """
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        try:
            losses = self._forward(data)
            self.optimizer.zero_grad()
            self.grad_scaler.scale(sum(losses.values())).backward()
            if self._after_backward is not None:
                self._after_backward()
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
            # Averages over ranks, and raises FloatingPointError unless the sum is finite.
            self._write(losses, data_time)
        except FloatingPointError as error:
            raise TrainingDiverged(self._explain(error, data)) from error

    def _forward(self, data: list[dict]) -> dict[str, torch.Tensor]:
        autocast = torch.autocast(self._device_type, self._dtype) if self._dtype else nullcontext()
        with autocast:
            losses = self.model(data)
        return losses if isinstance(losses, dict) else {"total_loss": losses}

    def _write(self, losses: dict[str, torch.Tensor], data_time: float) -> None:
        if "cur_iter" in inspect.signature(self.write_metrics).parameters:
            self.write_metrics(losses, data_time, self.iter)
        else:  # detectron2 0.6
            self.write_metrics(losses, data_time)

    def _explain(self, error: FloatingPointError, data: list[dict]) -> str:
        data = unpaired(data)  # as the model counts them
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        layer = getattr(error, "layer", None)
        if layer is None:
            images = range(len(data))
            # detectron2's message ends in a dump of all losses; the first line says it all.
            what = str(error).splitlines()[0].rstrip("!")
        else:
            images = error.images
            what = f"matching costs are NaN or infinite in prediction {layer!r}"
        names = ", ".join(str(data[i].get("file_name", f"number {i}")) for i in images)
        return (
            f"Training diverged at iteration {self.iter}: {what}; images: {names}; learning rate "
            f"{rate:.3g}. Checkpoints written before are kept. Usual remedies: a lower "
            "SOLVER.BASE_LR, a longer SOLVER.WARMUP_ITERS, SOLVER.CLIP_GRADIENTS, or "
            "SOLVER.AMP.DTYPE bfloat16 instead of float16."
        )

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continues a training of the same network.

        Raises:
            ValueError: the optimizer's state is of another one. Its fused steps would write beyond
                the end of tensors of other shapes, without a check of their own.
        """
        super().load_state_dict(state_dict)
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if torch.is_tensor(value) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(
                        f"the optimizer's {name} of a parameter is {list(value.shape)} there and "
                        f"{list(parameter.shape)} here. --resume continues a training of the same "
                        "network; to fine-tune another one, give the file as MODEL.WEIGHTS with a "
                        "new OUTPUT_DIR, without --resume"
                    )
        # Empty, or absent, when the checkpoint was written where nothing was scaled.
        if self.grad_scaler.is_enabled() and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
