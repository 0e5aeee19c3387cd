"""From the command line to a checked, frozen config and open log files."""

import argparse
import logging
import os
import re

import torch
import yaml

from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_setup
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from mask2former.config import add_maskformer2_config
from mask2former.data.datasets.custom import (
    CustomDatasetError,
    complete_entries,
    register_custom_datasets,
)

from .checks import check_config
from .errors import ConfigError
from .suggestions import nearest


def setup(args: argparse.Namespace) -> CfgNode:
    """The published set-up: keys, file, overrides, checks, freeze, logs, seed.

    Args:
        args: of detectron2's ``default_argument_parser``.

    Raises:
        UserError: nothing has been written then.
    """
    cfg = load_config(args.config_file, args.opts or [])
    note = choose_device(cfg, getattr(args, "num_gpus", 1))
    check_config(cfg, eval_only=args.eval_only, resume=args.resume)
    cfg.freeze()
    try:
        default_setup(cfg, args)
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} cannot be written to: {error}") from error
    logger = setup_logger(
        output=cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="mask2former"
    )
    if note:
        logger.info(note)
    if cfg.INPUT.NEW_SAMPLING:
        halve_batch(cfg)
    return cfg


def load_config(config_file: str, opts: list[str], *, need_data: bool = True) -> CfgNode:
    """Defaults, then ``config_file`` (may be empty), then ``KEY VALUE`` pairs; not frozen.

    The sets of DATASETS.CUSTOM that it uses are registered; with ``need_data=False`` (inference)
    their files may be elsewhere.

    Raises:
        ConfigError: the file is missing, or a key or value is not possible.
    """
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    if config_file:
        if not os.path.isfile(config_file):
            raise ConfigError(f"--config-file {config_file}: no such file")
        try:
            cfg.merge_from_file(config_file)
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            # A base that is missing, a file that is no YAML: the text names the file.
            raise ConfigError(f"{config_file}: {' '.join(str(error).split())}") from error
        except (KeyError, ValueError, AssertionError) as error:
            raise _explained(error, cfg, config_file) from error
        complete_entries(cfg)
    if len(opts) % 2:
        raise ConfigError(f"KEY VALUE overrides come in pairs; {opts[-1]!r} stands alone")
    for key, value in zip(opts[::2], opts[1::2]):
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, ValueError, AssertionError) as error:
            raise _explained(error, cfg, f"command line, {key} {value}") from error
    try:
        register_custom_datasets(cfg, need_files=need_data)
    except CustomDatasetError as error:
        raise ConfigError(str(error)) from error
    return cfg


def halve_batch(cfg: CfgNode) -> None:
    """SOLVER.IMS_PER_BATCH in items of crop sampling, which are two images each.

    The saved config keeps the number of images, as published.
    """
    cfg.SOLVER.defrost()
    cfg.SOLVER.IMS_PER_BATCH //= 2
    cfg.SOLVER.freeze()
    logger = logging.getLogger(__name__)
    logger.info("INPUT.NEW_SAMPLING: batches of %d pairs of images", cfg.SOLVER.IMS_PER_BATCH)


def choose_device(cfg: CfgNode, num_gpus: int) -> str | None:
    """Sets MODEL.DEVICE to the CPU where there is no GPU, or none is wanted.

    Returns:
        A line for the log if something was changed.
    """
    if not str(cfg.MODEL.DEVICE).startswith("cuda"):
        return None
    if torch.cuda.is_available() and num_gpus != 0:
        return None
    cfg.MODEL.DEVICE = "cpu"
    why = "--num-gpus 0" if torch.cuda.is_available() else "no GPU found"
    return f"MODEL.DEVICE set to cpu: {why}"


def _explained(error: Exception, cfg: CfgNode, where: str) -> ConfigError:
    text = str(error.args[0] if error.args else error)
    unknown = re.search(r"Non-existent (?:config )?key: ?'?([\w.]+)", text)
    if unknown is None:
        return ConfigError(f"{where}: {text}{_example(text, cfg)}")
    key = unknown.group(1)
    return ConfigError(f"{where}: there is no config key {key}{nearest(key, _all_keys(cfg))}")


def _example(text: str, cfg: CfgNode) -> str:
    """For a type mismatch, ``"; write it like 0.0001"``: the present value shows the type."""
    mismatch = re.search(r"Type mismatch .* for config key: ([\w.]+)", text, re.DOTALL)
    if mismatch is None:
        return ""
    value = cfg
    for part in mismatch.group(1).split("."):
        value = value[part]
    kind = type(value).__name__
    return f"; it must be a {kind}" + (f", like {value!r}" if value else "")


def _all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, CfgNode):
            keys += _all_keys(value, f"{prefix}{name}.")
    return keys
