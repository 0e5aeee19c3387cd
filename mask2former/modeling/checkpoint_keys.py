"""Converts parameter names of checkpoints older than the current layout, while they are loaded.

In the layout before module version 2 (published code), the parameters of the pixel decoder lay
directly under the head, and the masked decoder's ``query_feat`` was called ``static_query``. Which
layout a state dict has is told by its version metadata, which plain dicts and many ``.pkl`` lack.

Unlike the published loader, names that are current already are left alone whatever the metadata
says, and names that nobody takes are reported as unexpected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)

#: ``_version`` of modules whose parameter names are the current ones.
CURRENT_VERSION = 2


def convert_old_keys(
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    rename: Callable[[str], str],
) -> None:
    """Renames the keys below ``prefix`` in place, if the state dict may have an old layout.

    Call it first in a module's ``_load_from_state_dict``, with the arguments that came in.

    Args:
        rename: from a name without the prefix to the current one (or to itself).
    """
    version = local_metadata.get("version")
    if version is not None and version >= CURRENT_VERSION:
        return
    renamed = 0
    for key in [key for key in state_dict if key.startswith(prefix)]:
        new_key = prefix + rename(key.removeprefix(prefix))
        if new_key != key and new_key not in state_dict:
            state_dict[new_key] = state_dict.pop(key)
            renamed += 1
    if renamed:
        logger.warning(
            "Checkpoint has an old layout: %d parameter names under '%s' were converted.",
            renamed,
            prefix.removesuffix("."),
        )


def insert_pixel_decoder(head: nn.Module) -> Callable[[str], str]:
    """Renaming for heads: ``layer_1.weight`` becomes ``pixel_decoder.layer_1.weight``.

    Only where the head's pixel decoder has such a parameter, and the head no child of that name.
    """
    known = set(head.pixel_decoder.state_dict())
    children = dict(head.named_children())

    def rename(name: str) -> str:
        if name.split(".")[0] in children or name not in known:
            return name
        return f"pixel_decoder.{name}"

    return rename
