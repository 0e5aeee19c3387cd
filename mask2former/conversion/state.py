"""Fits renamed weights to the network of a config, and says what fitted."""

from __future__ import annotations

import copy
import json
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from mask2former.engine.errors import WeightsError
from mask2former.modeling.backbone.swin import WindowAttention

from .key_map import Renamed


@dataclass
class State:
    """A state dict for a network, and where every tensor of it is from.

    Attributes:
        weights: in the order, and with the version metadata, of the network's own.
        matched: our name -> the names in the source that it was made of.
        derived: buffers that the source does not have and that follow from the config.
        missing: what the network has and the source has not.
        mismatched: our name -> (shape in the source, shape in the network).
        left_over: names in the source that found no place.
    """

    weights: dict[str, Tensor]
    matched: dict[str, tuple[str, ...]] = field(default_factory=dict)
    derived: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line of counts."""
        return (
            f"matched {len(self.matched)}, derived {len(self.derived)}, "
            f"missing {len(self.missing)}, other shape {len(self.mismatched)}, "
            f"left over {len(self.left_over)}"
        )

    def write_report(self, path: str | Path, title: str = "") -> None:
        """The fate of every key, as JSON if ``path`` ends so, else as text."""
        path = Path(path)
        if path.suffix == ".json":
            keys = ("matched", "derived", "missing", "mismatched", "left_over")
            path.write_text(json.dumps({key: getattr(self, key) for key in keys}, indent=1))
            return
        lines = [title, self.summary(), "", "# matched: name here <- name(s) there"]
        lines += [f"{ours} <- {' + '.join(names)}" for ours, names in self.matched.items()]
        lines += ["", "# derived from the config", *self.derived]
        lines += ["", "# missing", *self.missing]
        lines += ["", "# other shape: there, here"]
        lines += [f"{n} {list(a)} {list(b)}" for n, (a, b) in self.mismatched.items()]
        lines += ["", "# left over", *self.left_over]
        path.write_text("\n".join(lines) + "\n")

    def refuse_incomplete(self, source: str) -> None:
        """Raises WeightsError if anything of the network is missing or has another shape."""
        if self.mismatched:
            name, (there, here) = next(iter(self.mismatched.items()))
            raise WeightsError(
                f"{source}: {len(self.mismatched)} weights have another shape than the config "
                f"asks for, e.g. {name}: {list(there)} there, {list(here)} here"
            )
        if self.missing:
            raise WeightsError(
                f"{source}: {len(self.missing)} weights of the network are missing, e.g. "
                f"{', '.join(self.missing[:3])}"
            )


def complete(cfg: CfgNode, renamed: Renamed) -> State:
    """Orders ``renamed`` as the network of ``cfg`` has its weights, and fills derivable buffers.

    Nothing is initialised: the network is built without storage. Missing weights stay out.
    """
    expected = empty_state(cfg)
    state = State(OrderedDict(), left_over=list(renamed.left_over))
    for name, wanted in expected.items():
        value = renamed.weights.get(name)
        if value is None or name.endswith("relative_position_index"):
            value = _derived(name, wanted, cfg)
            if value is None:
                state.missing.append(name)
                continue
            state.derived.append(name)
        elif value.shape != wanted.shape:
            state.mismatched[name] = (tuple(value.shape), tuple(wanted.shape))
            continue
        else:
            state.matched[name] = renamed.sources.get(name, (name,))
        state.weights[name] = value.to(wanted.dtype).contiguous()
    for name, sources in renamed.sources.items():
        # A frozen norm has no counter of batches, and needs none.
        if name not in expected and not name.endswith("num_batches_tracked"):
            state.left_over += sources
    state.weights._metadata = copy.deepcopy(expected._metadata)
    return state


def empty_state(cfg: CfgNode) -> dict[str, Tensor]:
    """The state dict of the network of ``cfg``, without storage."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg).state_dict()


def _derived(name: str, wanted: Tensor, cfg: CfgNode) -> Tensor | None:
    if name.endswith("attn.relative_position_index"):
        window = round(wanted.shape[0] ** 0.5)
        return WindowAttention(1, (window, window), num_heads=1).relative_position_index
    if name == "criterion.empty_weight":
        weight = torch.ones(wanted.shape)
        weight[-1] = cfg.MODEL.MASK_FORMER.NO_OBJECT_WEIGHT
        return weight
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=wanted.dtype)
    return None


def save(weights: dict[str, Tensor], path: str | Path, author: str = "mask2former") -> None:
    """Writes ``{"model": weights}`` as this project's checkpoints are, metadata included."""
    temporary = Path(f"{path}.tmp{os.getpid()}")
    try:
        torch.save({"model": weights, "__author__": author}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
