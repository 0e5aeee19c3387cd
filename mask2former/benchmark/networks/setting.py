"""What is measured: config, size, precision, threads."""

import contextlib
from dataclasses import dataclass

import torch

from detectron2.config import CfgNode
from mask2former.engine.errors import ConfigError
from mask2former.engine.setup import load_config

FLOAT32 = "float32"


@dataclass(frozen=True)
class Setting:
    """Picklable, so that a process of its own can measure memory.

    Attributes:
        config_file: of the model; MODEL.WEIGHTS is not read, weights are random.
        opts: KEY VALUE overrides.
        size: (height, width) of the images.
        output: (height, width) that predictions are resized to.
        dtype: float32, or the autocast type bfloat16 or float16.
        device: cpu or cuda.
        threads: of torch.
        images: in a batch.
        objects: ground-truth segments an image, in training.
        compiled: torch.compile our network.
        heads_only: in training, without the backbone: its features are given.
    """

    config_file: str
    opts: tuple[str, ...] = ()
    size: tuple[int, int] = (512, 683)
    output: tuple[int, int] = (512, 683)
    dtype: str = FLOAT32
    device: str = "cpu"
    threads: int = 2
    images: int = 1
    objects: int = 12
    compiled: bool = False
    heads_only: bool = False

    def config(self) -> CfgNode:
        """The config with panoptic and instance output, and no randomness in training.

        Raises:
            ConfigError: file or keys are wrong, or there is no such device.
        """
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"--device {self.device}: torch finds no GPU; leave it out for cpu")
        cfg = load_config(self.config_file, [], need_data=False)
        cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
        cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True
        cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON = False
        cfg.MODEL.MASK_FORMER.DROPOUT = 0.0
        cfg.MODEL.SWIN.DROP_PATH_RATE = 0.0
        if self.opts:
            fresh = load_config(self.config_file, list(self.opts), need_data=False)
            for key in self.opts[::2]:
                cfg.merge_from_list([key, _value(fresh, key)])
        cfg.MODEL.DEVICE = self.device
        return cfg

    def autocast(self) -> contextlib.AbstractContextManager:
        """Around a forward pass and its losses."""
        if self.dtype == FLOAT32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.partition(":")[0], getattr(torch, self.dtype))

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def _value(cfg: CfgNode, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
