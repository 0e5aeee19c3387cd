"""The scalars of a training step: reduced over ranks with one collective and one copy to the host.

The copy is started when the losses are known and waited for as late as possible, so that the host
can go on launching kernels.
"""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

__all__ = ["StepMetrics"]


class StepMetrics:
    """Losses of one step on their way to the event storage.

    Args:
        losses: name -> scalar tensor (or number), the same names on every rank.
        data_time: seconds this rank waited for its batch.
        iteration: which the values belong to.
        prefix: put before the names.
    """

    def __init__(
        self, losses: Mapping[str, Tensor | float], data_time: float, iteration: int, prefix: str
    ) -> None:
        self._names = sorted(losses)  # the same order on every rank
        self._order = list(losses)
        self._data_time = data_time
        self._iteration = iteration
        self._prefix = prefix
        with torch.no_grad():
            self._host, self._copied = self._start(losses)

    def _start(self, losses: Mapping[str, Tensor | float]) -> tuple[Tensor, object]:
        """Starts gathering; gives ``[world, len(losses) + 1]`` on the host and what to wait for."""
        tensors = [v for v in losses.values() if isinstance(v, Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        row = torch.stack(
            [
                torch.as_tensor(losses[name], dtype=torch.float32, device=device).reshape(())
                for name in self._names
            ]
            + [torch.full((), self._data_time, dtype=torch.float32, device=device)]
        )
        if comm.get_world_size() > 1:
            if dist.get_backend() != dist.Backend.NCCL:
                row = row.cpu()
            rows = [torch.empty_like(row) for _ in range(comm.get_world_size())]
            dist.all_gather(rows, row)
            table = torch.stack(rows)
        else:
            table = row[None]
        if table.device.type != "cuda":
            return table.cpu(), None
        host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
        host.copy_(table, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return host, copied

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`write` would not have to wait."""
        return self._copied is None or self._copied.query()

    def write(self) -> None:
        """Waits for the values, checks them (on all ranks) and stores them (on the main process).

        Raises:
            FloatingPointError: the total loss is infinite or NaN.
        """
        if self._copied is not None:
            self._copied.synchronize()
        means = dict(zip(self._names, self._host[:, :-1].double().mean(dim=0).tolist()))
        losses = {name: means[name] for name in self._order}
        total = sum(losses.values())
        if not abs(total) < float("inf"):
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={self._iteration}!\nloss_dict = {losses}"
            )
        if not comm.is_main_process():
            return
        storage, iteration = get_event_storage(), self._iteration
        storage.put_scalar("rank_data_time", self._data_time, cur_iter=iteration)
        storage.put_scalar("data_time", self._host[:, -1].max().item(), cur_iter=iteration)
        storage.put_scalar(f"{self._prefix}total_loss", total, cur_iter=iteration)
        if len(losses) > 1:
            named = {f"{self._prefix}{name}": value for name, value in losses.items()}
            storage.put_scalars(cur_iter=iteration, **named)
