"""Weights of ViT-Adapter: its mmdetection checkpoints, and the BEiT ones it is trained from.

Both functions are pure: from a state dict to one under this project's names and a report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from mask2former.engine.errors import WeightsError

from .mmdet_keys import from_mmdet

_TABLE = "relative_position_bias_table"
# Parts of BEiT that the adapter's encoder does not have.
_UNUSED = ("cls_token", "mask_token", "head.", "lm_head.", "fc_norm.", "norm.")


@dataclass
class Report:
    """What became of the tensors of a file.

    Attributes:
        kind: what the file was recognised as.
        converted: number of tensors handed on.
        resampled: relative position tables brought to another window size.
        averaged: number of ``ema_*`` tensors in the file.
        used_averages: whether these were taken.
        ignored: names without a counterpart here, known to be dispensable.
        left_over: names that nothing knows.
    """

    kind: str
    converted: int = 0
    resampled: list[str] = field(default_factory=list)
    averaged: int = 0
    used_averages: bool = False
    ignored: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.kind}: {self.converted} weights converted"]
        if self.resampled:
            parts.append(f"{len(self.resampled)} relative position tables resampled")
        if self.averaged:
            which = "taken" if self.used_averages else "left, the regular names hold the averages"
            parts.append(f"{self.averaged} ema_* buffers {which}")
        parts.append(f"{len(self.ignored)} ignored, {len(self.left_over)} left over")
        return "; ".join(parts) + _some(self.left_over)


def is_detector(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are those of a whole mmdetection model, and not of a plain BEiT."""
    return any(name.startswith(("backbone.spm.", "panoptic_head.")) for name in weights)


def from_vit_adapter_mmdet(
    weights: Mapping[str, Tensor], *, use_ema_buffers: bool = False
) -> tuple[dict[str, Tensor], Report]:
    """A Mask2Former of the ViT-Adapter repository (mmdetection 2) as one of this project.

    Args:
        weights: ``state_dict`` of the checkpoint. While mmdetection's EMA hook is active, a
            checkpoint holds every parameter twice: under its name, which at the time of saving has
            the averaged value, and as ``ema_<name with underscores>``.
        use_ema_buffers: take the latter, for checkpoints that were saved before the swap.

    Returns:
        the weights under ``backbone.*`` and ``sem_seg_head.*``, and a report.

    Raises:
        WeightsError: no such model, or EMA buffers are wanted and there are none.
    """
    if not is_detector(weights):
        raise WeightsError(
            "these are not the weights of an mmdetection model with ViT-Adapter: neither "
            f"backbone.spm.* nor panoptic_head.* is among them{_some(weights)}"
        )
    report = Report("mmdetection, ViT-Adapter")
    regular = {k: v for k, v in weights.items() if not k.startswith("ema_")}
    averages = {k: v for k, v in weights.items() if k.startswith("ema_")}
    report.averaged, report.used_averages = len(averages), use_ema_buffers
    if use_ema_buffers:
        regular = _with_averages(regular, averages)
    report.ignored = [k for k in regular if k.endswith("loss_cls.class_weight")]
    renamed = from_mmdet({k: v for k, v in regular.items() if k not in report.ignored})
    converted = dict(renamed.weights)
    report.converted, report.left_over = len(converted), list(renamed.left_over)
    return converted, report


def from_beit(
    weights: Mapping[str, Tensor], window_sizes: Sequence[int]
) -> tuple[dict[str, Tensor], Report]:
    """A pretrained BEiT or BEiTv2 as the encoder of ``D2BEiTAdapter``.

    Follows the published loading: a bias table shared by all blocks is given to each, its three
    entries for the class token are dropped, and it is resampled to the window of its block.

    Args:
        weights: of the BEiT repository or of timm, after removing ``model`` or ``state_dict``.
        window_sizes: side of each block's window in the adapter, one entry a block.

    Returns:
        the weights under ``backbone.*``, and a report.

    Raises:
        WeightsError: no BEiT, or one of another depth.
    """
    weights = dict(weights)
    if sorted(weights)[0].startswith("encoder"):
        prefix = "encoder."
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    depth = 1 + max((int(k.split(".")[1]) for k in weights if k.startswith("blocks.")), default=-1)
    if depth != len(window_sizes):
        raise WeightsError(
            f"this file has {depth} blocks, the config {len(window_sizes)}{_some(weights)}; give "
            "the config of the same BEiT (MODEL.VIT_ADAPTER.DEPTH)"
        )
    shared = weights.pop(f"rel_pos_bias.{_TABLE}", None)
    if shared is not None:
        weights |= {f"blocks.{i}.attn.{_TABLE}": shared for i in range(depth)}

    report, converted = Report("BEiT"), {}
    for name, value in weights.items():
        if name.startswith(_UNUSED) or name.endswith("relative_position_index"):
            report.ignored.append(name)
        elif name.endswith(_TABLE):
            side = 2 * window_sizes[int(name.split(".")[1])] - 1
            table = value[:-3]  # the last three are to, from and among class tokens
            if len(table) != side * side:
                table = resample_table(table, side)
                report.resampled.append(name)
            converted[f"backbone.{name}"] = table.contiguous()
        elif name == "pos_embed":
            converted["backbone.pos_embed"] = value[:, 1:].contiguous()  # without the class token
        elif name.startswith(("blocks.", "patch_embed.proj.")):
            converted[f"backbone.{name}"] = value
        else:
            report.left_over.append(name)
    report.converted = len(converted)
    return converted, report


def resample_table(table: Tensor, side: int) -> Tensor:
    """A relative position table for another window, as BEiT does it.

    The source's entries are placed at distances that grow geometrically, so that neighbours keep
    theirs and far ones are spread over the new range; between them a bicubic spline.

    Args:
        table: float ``[s * s, heads]``, s odd.
        side: of the new table, 2 * window - 1.

    Returns:
        float ``[side * side, heads]``.
    """
    source = math.isqrt(len(table))
    places = _geometric_places(source, side)
    wanted = np.arange(side, dtype=np.float64) - side // 2
    resampled = [
        RectBivariateSpline(places, places, head.reshape(source, source), s=0)(wanted, wanted)
        for head in table.t().double().numpy()
    ]
    return torch.from_numpy(np.stack(resampled)).flatten(1).t().to(table.dtype)


def _geometric_places(source: int, target: int) -> np.ndarray:
    """Distances -d_n ... 0 ... d_n of the source's entries, d_k = 1 + q + ... + q^(k-1).

    q is found by bisection such that d_n is the target's reach.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        reach = (1 - q ** (source // 2)) / (1 - q)
        low, high = (low, q) if reach > target // 2 else (q, high)
    steps = q ** np.arange(source // 2)
    distances = np.cumsum(steps)
    return np.concatenate([-distances[::-1], [0.0], distances])


def _with_averages(regular: Mapping[str, Tensor], averages: Mapping[str, Tensor]):
    if not averages:
        raise WeightsError("there are no ema_* buffers in this file; leave out --ema buffers")
    flat = {"ema_" + name.replace(".", "_"): name for name in regular}
    unknown = [name for name in averages if name not in flat]
    if unknown:
        raise WeightsError(f"ema_* buffers without a parameter of that name{_some(unknown)}")
    return {**regular, **{flat[name]: value for name, value in averages.items()}}


def _some(names) -> str:
    shown = list(names)[:3]
    return f" ({', '.join(shown)}, ...)" if shown else ""
