"""Models of timm with their pretrained weights: from a file, the cache, or the network."""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ..errors import BackboneError

logger = logging.getLogger(__name__)


def create_model(
    name: str, *, pretrained: bool | str | None, file: str, key: str, options: dict[str, Any]
) -> nn.Module:
    """``timm.create_model`` whose failures say what to do.

    Args:
        name: of the architecture, perhaps with a tag of weights: ``convnext_tiny.fb_in22k``.
        pretrained: None or False for random weights, True for timm's own (from its cache, else
            downloaded), or the path of a local file.
        file: path of a local file, which wins over ``pretrained``; may be empty.
        key: the config node the settings come from, for messages (``MODEL.TIMM``).
        options: further keyword arguments of ``timm.create_model``.

    Raises:
        BackboneError: there is no such model, it cannot be built this way, or its weights cannot be
            had.
    """
    check_name(name, key)
    if isinstance(pretrained, str) and not file:
        file, pretrained = pretrained, None
    if file and not Path(file).is_file():
        raise BackboneError(f"{key}: the file of pretrained weights {file} does not exist")
    overlay = {"file": str(file)} if file else None
    wanted = bool(pretrained) or bool(file)
    if not wanted:
        return _create(name, key, options)
    random_state = torch.get_rng_state()
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:  # of the network, the hub client, the file or the architecture
        # The same failure without weights is not about weights.
        _create(name, key, options)
        raise BackboneError(_how_to_get(name, file, key, error)) from error
    torch.set_rng_state(random_state)
    source = file or "timm's cache or hub"
    _check_loaded(model, _create(name, key, options), f"{key}: {source}", name)
    logger.info("%s: pretrained weights of %s from %s", key, name, source)
    return model


def check_name(name: str, key: str) -> None:
    """Raises BackboneError, with names that look similar, when timm has no such model or tag."""
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture):
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            possible = [architecture, *timm.list_pretrained(f"{architecture}.*")]
            raise BackboneError(
                f"{key}: timm {timm.__version__} has no weights {tag!r} of {architecture}; "
                f"possible are {', '.join(possible)}"
            ) from error
        return
    similar = get_close_matches(architecture, timm.list_models(), n=5)
    hint = f"Similar: {', '.join(similar)}. " if similar else ""
    raise BackboneError(
        f"{key}: timm {timm.__version__} has no model {name!r}. {hint}"
        'All names: python -c "import timm; print(timm.list_models())"'
    )


def _create(name: str, key: str, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=False, **options)
    except (
        TypeError,
        AssertionError,
        RuntimeError,
        ValueError,
        AttributeError,
        LookupError,
    ) as error:
        raise BackboneError(
            f"{key}: timm cannot build {name} with {options}: {error or type(error).__name__}"
        ) from error


def _check_loaded(model: nn.Module, fresh: nn.Module, source: str, name: str) -> None:
    """timm takes what fits of a file and is content with nothing; this refuses that.

    Args:
        fresh: the same model with the random values that ``model`` had before its weights came.
    """
    pairs = list(zip(model.parameters(), fresh.parameters()))
    # Constants (norms, biases) may well be the same in the file.
    random = [(a, b) for a, b in pairs if b.numel() > 1 and b.min() != b.max()]
    kept = sum(torch.equal(a, b) for a, b in random)
    if kept > 0.1 * len(random):
        raise BackboneError(
            f"{source} does not hold weights of {name}: {kept} of its {len(random)} tensors would "
            "stay random"
        )


def _how_to_get(name: str, file: str, key: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if file:
        return f"{key}: {file} does not hold weights of {name}: {reason}"
    source = timm.get_pretrained_cfg(name)
    hub_id = getattr(source, "hf_hub_id", None)
    url = getattr(source, "url", None)
    if not hub_id and not url:
        return f"{key}: timm has no pretrained weights for {name}; set {key}.PRETRAINED False"
    if hub_id:
        file_name = getattr(source, "hf_hub_filename", None) or "model.safetensors"
        url = f"https://huggingface.co/{hub_id}/resolve/main/{file_name}"
    return (
        f"{key}: the pretrained weights of {name} are not in timm's cache and cannot be downloaded "
        f"({reason}). On a machine with network get {url}, copy it here and give its path as "
        f"{key}.PRETRAINED_FILE; or set {key}.PRETRAINED False to start from random weights."
    )
