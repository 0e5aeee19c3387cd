"""Normalisation layers: frozen, synchronised and channel-first ones, chosen by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fvcore.nn.distributed import differentiable_all_reduce
from torch import nn
from torch.nn import functional as F

from detectron2._missing import missing_getattr
from detectron2.layers.wrappers import BatchNorm2d
from detectron2.utils import comm

__all__ = ["FrozenBatchNorm2d", "LayerNorm", "NaiveSyncBatchNorm", "get_norm"]


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine parameters are constant buffers.

    ``y = (x - running_mean) / sqrt(running_var + eps) * weight + bias``, per channel. Fresh
    buffers make it the identity (running_var is 1 - eps).
    """

    _version = 3

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, ...] -> the same shape and dtype."""
        if x.requires_grad:
            # F.batch_norm would keep tensors for gradients of weight and bias, which nobody
            # wants. The two vectors are made in fp32; only the result takes the input's dtype.
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            shift = self.bias - self.running_mean * scale
            shape = (1, -1) + (1,) * (x.dim() - 2)
            return x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        version = local_metadata.get("version")
        if version is None or version < 2:
            # The first version had the statistics folded into weight and bias.
            mean, var = prefix + "running_mean", prefix + "running_var"
            if mean not in state_dict:
                state_dict[mean] = torch.zeros_like(self.running_mean)
            if var not in state_dict:
                state_dict[var] = torch.ones_like(self.running_var)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def __repr__(self) -> str:
        return f"FrozenBatchNorm2d(num_features={self.num_features}, eps={self.eps})"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """``module`` with every BatchNorm2d and SyncBatchNorm below it (or itself) frozen.

        Works in place for modules that contain such layers; a layer itself is replaced, so use
        the return value.
        """
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            frozen = cls(module.num_features, module.eps)
            if module.affine:
                frozen.weight = module.weight.detach().clone()
                frozen.bias = module.bias.detach().clone()
            if module.running_mean is not None:
                frozen.running_mean = module.running_mean
                frozen.running_var = module.running_var
            return frozen.train(module.training)
        return _replace_children(module, cls.convert_frozen_batchnorm)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """The other way round: every FrozenBatchNorm2d becomes a trainable BatchNorm2d."""
        if isinstance(module, FrozenBatchNorm2d):
            trainable = nn.BatchNorm2d(module.num_features, module.eps)
            trainable.weight.data.copy_(module.weight)
            trainable.bias.data.copy_(module.bias)
            trainable.running_mean.copy_(module.running_mean)
            trainable.running_var.copy_(module.running_var)
            return trainable.to(module.weight.device).train(module.training)
        return _replace_children(module, cls.convert_frozenbatchnorm2d_to_batchnorm2d)


def _replace_children(module: nn.Module, convert: Callable[[nn.Module], nn.Module]) -> nn.Module:
    for name, child in list(module.named_children()):
        converted = convert(child)
        if converted is not child:
            module.add_module(name, converted)
    return module


def _normalize_across_processes(
    layer: nn.modules.batchnorm._BatchNorm, x: torch.Tensor, weight_by: str
) -> torch.Tensor:
    """Batch normalisation with statistics from all processes, by one all-reduce.

    Args:
        weight_by: how processes with batches of different size count: "equal", "batch" (number
            of images) or "pixels".
    """
    channels = x.shape[1]
    if weight_by == "equal" and x.shape[0] == 0:
        raise ValueError('naiveSyncBN does not support empty inputs; use "naiveSyncBN_N"')
    count = {"equal": 1, "batch": x.shape[0], "pixels": x.numel() // channels}[weight_by]
    values = x.float()
    if x.shape[0] == 0:
        # keep the graph connected, so that every process takes part in the backward all-reduce
        sums = torch.zeros(2 * channels, device=x.device) + values.sum() * 0.0
    else:
        mean = values.mean(dim=(0, 2, 3))
        sums = torch.cat((mean, (values * values).mean(dim=(0, 2, 3)))) * count
    sums = differentiable_all_reduce(torch.cat((sums, sums.new_tensor([float(count)]))))
    total = sums[-1].detach()
    mean, mean_of_squares = (sums[:-1] / total.clamp(min=1)).split(channels)
    var = mean_of_squares - mean * mean

    if layer.track_running_stats:
        with torch.no_grad():
            # nothing anywhere: leave the statistics alone
            momentum = layer.momentum * (total > 0)
            seen = var * total / (total - 1).clamp(min=1) if weight_by == "pixels" else var
            layer.running_mean += momentum * (mean.detach() - layer.running_mean)
            layer.running_var += momentum * (seen.detach() - layer.running_var)

    scale = torch.rsqrt(var + layer.eps)
    shift = -mean * scale
    if layer.affine:
        scale, shift = scale * layer.weight, shift * layer.weight + layer.bias
    return (values * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)


class NaiveSyncBatchNorm(BatchNorm2d):
    """Batch normalisation over all processes, written with a differentiable all-reduce.

    Unlike ``nn.SyncBatchNorm`` it works on the CPU and with empty inputs.
    """

    def __init__(self, *args, stats_mode: str = "", **kwargs) -> None:
        """
        Args:
            stats_mode: how processes with inputs of different size count. "" lets every process
                count the same, "N" weights by the batch size, "pixels" by the number of values
                as ``nn.SyncBatchNorm`` does (then the running variance is the unbiased one too).
        """
        super().__init__(*args, **kwargs)
        if stats_mode not in _WEIGHT_BY:
            raise AssertionError(f"stats_mode must be one of {list(_WEIGHT_BY)}")
        self._stats_mode = stats_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if comm.get_world_size() == 1 or not self.training:
            return super().forward(x)
        return _normalize_across_processes(self, x, _WEIGHT_BY[self._stats_mode])


_WEIGHT_BY = {"": "equal", "N": "batch", "pixels": "pixels"}


def _sync_batch_norm(channels: int) -> nn.Module:
    """torch's SyncBatchNorm, or on machines without a GPU, where torch refuses it, ours."""
    if torch.cuda.is_available():
        return nn.SyncBatchNorm(channels)
    return NaiveSyncBatchNorm(channels, stats_mode="pixels")


class LayerNorm(nn.Module):
    """LayerNorm over the channels of [N, C, H, W] (as in ConvNeXt and ViTDet)."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(var + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": BatchNorm2d,
    "SyncBN": _sync_batch_norm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "nnSyncBN": _sync_batch_norm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "LN": LayerNorm,
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """The normalisation layer for ``out_channels`` channels.

    Args:
        norm: a name ("BN", "SyncBN", "FrozenBN", "GN" with 32 groups, "LN", "nnSyncBN",
            "naiveSyncBN", "naiveSyncBN_N"), a callable that takes the number of channels, or
            None or "" for no layer.

    Raises:
        KeyError: another name.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise KeyError(f"Unknown normalisation {norm!r}; known: {', '.join(_NORMS)}")
        norm = _NORMS[norm]
    return norm(out_channels)


__getattr__ = missing_getattr(__name__)
