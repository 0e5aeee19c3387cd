"""Makes a model with its final weights faster, or deliberately plain, for inference only.

Batch norms with constant statistics are linear, so they are folded into the convolutions before
them; and convolutional backbones run on channels-last tensors, which CPU and GPU kernels prefer.
Both change results by rounding only. docs/performance.md has what they gain.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from mask2former.ops import use_implementation

from .compiling import compile_for_inference
from .postprocessing.plain import segment_all_plainly

# Written as (convolution, norm) attributes of one module; timm's ResNets have such pairs, always
# called one right after the other. (Its norms that include an activation are left alone.)
_TIMM_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))


def prepare_for_inference(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """Applies ``MODEL.FAST`` and ``MODEL.COMPILE`` to a model with its final weights.

    True: batch norms of the backbone are folded and convolutional backbones work channels-last.
    Parameters change in name and value, so do not save the model's state dict afterwards. False:
    the model is left as published, and the compiled ops give way to their readable references
    during its calls. For ``MODEL.COMPILE`` see
    :func:`~mask2former.modeling.compiling.compile_for_inference`.

    Args:
        model: any meta architecture; is put into evaluation mode and changed in place.
        cfg: its config.

    Returns:
        ``model``.
    """
    model.eval()
    if cfg.MODEL.COMPILE:
        compile_for_inference(model)
    if not cfg.MODEL.FAST:
        return with_reference_ops(model)
    backbone = getattr(model, "backbone", None)
    if backbone is not None:
        fold_batch_norms(backbone)
        if is_convolutional(backbone):
            use_channels_last(backbone)
    return model


@contextlib.contextmanager
def compact_outputs(model: nn.Module) -> Iterator[None]:
    """Lets models give what evaluators and drawing read of them, not more.

    ``sem_seg`` is a :class:`~.postprocessing.LabelScores`, whose ``argmax(dim=0)`` gives the same
    labels without K full-size maps of scores; ``pred_masks`` are bool, not float.

    Args:
        model: contains meta architectures that have ``compact_outputs``; others do not mind.
    """
    able = [m for m in model.modules() if hasattr(m, "compact_outputs")]
    before = [m.compact_outputs for m in able]
    for module in able:
        module.compact_outputs = True
    try:
        yield
    finally:
        for module, value in zip(able, before):
            module.compact_outputs = value


def fold_batch_norms(module: nn.Module) -> int:
    """Folds batch norms into the convolutions before them, in place.

    Looks at detectron2's ``Conv2d`` with a ``norm``, neighbours in ``nn.Sequential``, and timm's
    ResNets. Norms that would use the statistics of a batch are left as they are.

    Args:
        module: in evaluation mode.

    Returns:
        how many were folded.
    """
    folded = 0
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d) and _is_constant(getattr(part, "norm", None)):
            fold(part, part.norm)
            part.norm = None
            folded += 1
            continue
        for first, second in _pairs(part):
            norm = getattr(part, second)
            if type(getattr(part, first)) is nn.Conv2d and _is_constant(norm):
                fold(getattr(part, first), norm)
                setattr(part, second, nn.Identity())
                folded += 1
    return folded


@torch.no_grad()
def fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Gives ``conv`` the weight and bias with which it equals ``norm(conv(x))``."""
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = (var + norm.eps).rsqrt()  # [C], in float64: folding rounds once
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight, bias = conv.weight.double(), conv.bias
    if bias is not None:
        shift = shift + bias.double() * scale
    dtype = conv.weight.dtype
    folded = (weight * scale[:, None, None, None]).to(dtype)
    conv.weight = nn.Parameter(folded, requires_grad=False)
    conv.bias = nn.Parameter(shift.to(dtype), requires_grad=False)


def is_convolutional(module: nn.Module) -> bool:
    """Whether most multiplications are convolutions': most weights are theirs."""
    convs = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
    linears = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    return convs > linears


def use_channels_last(backbone: nn.Module) -> None:
    """Weights and inputs of ``backbone`` become channels-last; so do its outputs."""
    backbone.to(memory_format=torch.channels_last)
    backbone.register_forward_pre_hook(_input_channels_last)


def _input_channels_last(module: nn.Module, inputs: tuple) -> tuple:
    return tuple(
        x.contiguous(memory_format=torch.channels_last)
        if isinstance(x, Tensor) and x.dim() == 4
        else x
        for x in inputs
    )


def _is_constant(norm: nn.Module | None) -> bool:
    """Whether it is a batch norm that only scales and shifts in evaluation, without more."""
    if isinstance(norm, FrozenBatchNorm2d):
        return True
    # timm's norms with an activation are subclasses of BatchNorm2d and would lose it.
    if not isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)) or hasattr(norm, "act"):
        return False
    return not norm.training and norm.running_mean is not None


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of children where the second is applied to the output of the first."""
    names = list(module._modules)
    if isinstance(module, nn.Sequential):
        return list(itertools.pairwise(names))
    if type(module).__module__ == "timm.models.resnet":
        return [pair for pair in _TIMM_PAIRS if set(pair) <= set(names)]
    return []


class ReferenceForward:
    """Takes the place of a model's ``forward``: runs it with the readable references of the ops.

    An object, not a function around the method: a copy or pickle of the model has one that runs the
    copy, where a function would go on running the original.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.replaced = vars(model).get("forward")  # None: the method of its class

    def __call__(self, *args, **kwargs):
        forward = self.replaced or functools.partial(type(self.model).forward, self.model)
        with use_implementation("reference"):
            return forward(*args, **kwargs)


def with_reference_ops(model: nn.Module) -> nn.Module:
    model.forward = ReferenceForward(model)
    if hasattr(model, "segment"):
        model.segment = segment_all_plainly
    return model
