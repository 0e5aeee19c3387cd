"""Layer-wise learning rates: the deeper a pretrained block, the slower it learns.

The rule is that of BEiT (Bao et al., ICLR 2022) as ViT-Adapter's optimizer constructor for
mmdetection has it. With rate r and an encoder of D blocks, block i learns with r^(D - i) of the
base rate, what comes before the blocks with r^(D + 1), and everything else (the adapter, norms
after the encoder, the head) with the full rate. Parameters with one dimension do not decay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

# Blocks are numbered in the order in which the model defines them. One pattern fits one family:
_BLOCKS = (
    r"layers\.\d+\.blocks\.\d+",  # Swin, DiNAT
    r"levels\.\d+\.blocks\.\d+",  # DiNAT
    r"stages[._]\d+\.blocks\.\d+",  # ConvNeXt and other staged models of timm
    r"layers_\d+\.blocks\.\d+",  # timm's Swin
    r"blocks\.\d+\.\d+",  # EfficientNet, MobileNet
    r"blocks\.\d+",  # plain transformers
    r"(?:layer\d+|res[2-5]|stages[._]\d+)\.\d+",  # ResNets
)
# Adapter parts are defined after the blocks and learn with the full rate, by the rule below. These
# are defined before the blocks, but are no part of the pretrained encoder.
_NEW_PARTS = ("level_embed",)


def layer_scales(names: Iterable[str], rate: float, prefix: str = "backbone.") -> dict[str, float]:
    """The factor of the learning rate of every parameter.

    Args:
        names: of all parameters, in the order in which the model defines them.
        rate: r, in (0, 1].
        prefix: of the parameters of the backbone.

    Raises:
        ValueError: the backbone has no numbered blocks.
    """
    names = list(names)
    inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    block_of = _blocks(inside)
    if not block_of:
        raise ValueError("the backbone has no numbered blocks whose learning rates could decay")
    number = {block: i for i, block in enumerate(dict.fromkeys(block_of.values()))}
    first, last = (
        inside.index(next(iter(block_of))),
        max(i for i, name in enumerate(inside) if name in block_of),
    )
    scales = dict.fromkeys(names, 1.0)
    current = -1
    for i, name in enumerate(inside):
        if name in block_of:
            current = number[block_of[name]]
        elif i > last or name in _NEW_PARTS:
            continue  # the adapter, output norms
        elif i < first or _is_embedding(name):
            scales[prefix + name] = rate ** (len(number) + 1)
            continue
        # A patch merging between two blocks learns like the block before it.
        scales[prefix + name] = rate ** (len(number) - current)
    return scales


def decays(parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter under this rule."""
    return parameter.dim() > 1


def _blocks(names: list[str]) -> dict[str, str]:
    """The block of every parameter that is in one, by the first family that fits any name."""
    for pattern in _BLOCKS:
        found = {name: re.match(rf"(?:\w+\.)*?({pattern})\.", name) for name in names}
        block_of = {name: match.group(1) for name, match in found.items() if match}
        if block_of:
            return block_of
    return {}


def _is_embedding(name: str) -> bool:
    return name.split(".")[-1] in ("cls_token", "reg_token", "pos_embed", "mask_token")
