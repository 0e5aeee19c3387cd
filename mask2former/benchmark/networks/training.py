"""A training step: forward, criterion and backward on one batch with ground truth."""

import contextlib
import copy
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor, nn

from detectron2.config import CfgNode
from detectron2.structures import Instances
from mask2former.modeling.compiling import compile_for_training
from mask2former.modeling.fast_training import prepare_for_training
from mask2former.ops import use_implementation

from .building import build_network, in_transformers
from .inference import OURS, REFERENCE, TRANSFORMERS
from .setting import Setting


class Ours:
    """Our model's step.

    Args:
        network: with the weights; it is copied.
        cfg: its config.
        setting: sizes and precision.
    """

    def __init__(self, network: nn.Module, cfg: CfgNode, setting: Setting) -> None:
        self.setting = setting
        self.batch = _batch(cfg, setting)
        self.network = copy.deepcopy(network).train()
        # The peer has frozen batch norms neither: both use the stored statistics.
        _fix_statistics(self.network)
        self.pixels = self.network.preprocess_image(self.batch).tensor
        self._prepare(cfg)
        if setting.heads_only:
            with torch.no_grad():
                features = network.backbone(self.pixels)
            self._give_features({name: f.contiguous() for name, f in features.items()})

    def _prepare(self, cfg: CfgNode) -> None:
        prepare_for_training(self.network, cfg)
        if self.setting.compiled:
            compile_for_training(self.network)

    def _give_features(self, features: dict[str, Tensor]) -> None:
        self.network.backbone = _Fixed(features)

    def loss(self) -> Tensor:
        """The weighted sum of all losses."""
        with self.setting.autocast():
            return sum(self.network(self.batch).values())

    @property
    def criterion(self) -> nn.Module:
        """Has ``importance_sample_ratio``."""
        return self.network.criterion

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those that learn."""
        return (p for p in self.network.parameters() if p.requires_grad)

    def gradient_norm(self) -> Tensor:
        """Of all parameters together, after a step."""
        grads = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        return torch.stack(grads).norm()

    def __call__(self) -> Tensor:
        """The step, until the device has finished; returns the loss."""
        for parameter in self.parameters():
            parameter.grad = None
        loss = self.loss()
        loss.backward()
        self.setting.synchronize()
        return loss.detach()


class Reference(Ours):
    """The same with the ops' readable references."""

    def _prepare(self, cfg: CfgNode) -> None:
        pass

    def loss(self) -> Tensor:
        with use_implementation("reference"):
            return super().loss()


class Transformers(Ours):
    """Hugging Face's model with its own loss."""

    def _prepare(self, cfg: CfgNode) -> None:
        model = in_transformers(self.network, cfg).train()
        _fix_statistics(model)
        # What learns there is what learns here: no step without these gradients would be alike.
        if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
            _freeze_stem(model, cfg.MODEL.BACKBONE.FREEZE_AT)
        targets = [record["instances"] for record in self.batch]
        targets = self.network.prepare_targets(targets, self._images())
        self.labels = {
            "mask_labels": [t["masks"].float() for t in targets],
            "class_labels": [t["labels"] for t in targets],
        }
        self.network = model

    def _give_features(self, features: dict[str, Tensor]) -> None:
        maps = SimpleNamespace(feature_maps=list(features.values()))
        self.network.model.pixel_level_module.encoder = _Fixed(maps)

    def _images(self):
        return self.network.preprocess_image(self.batch)

    def loss(self) -> Tensor:
        with self.setting.autocast():
            return self.network(pixel_values=self.pixels, **self.labels).loss.sum()


class _Fixed(nn.Module):
    """Stands for a backbone and gives the same features for any images."""

    def __init__(self, features: object) -> None:
        super().__init__()
        self.features = features

    def forward(self, *images: Tensor, **options: object) -> object:
        return self.features


KINDS = {OURS: Ours, REFERENCE: Reference, TRANSFORMERS: Transformers}


def make(kind: str, setting: Setting, network: nn.Module | None = None) -> Ours:
    """One implementation; ``network`` (by default a fresh one, always the same) is copied."""
    cfg = setting.config()
    return KINDS[kind](network if network is not None else build_network(cfg), cfg, setting)


@contextlib.contextmanager
def uniform_points(subject: Ours) -> Iterator[None]:
    """Losses look at uniform random points only."""
    with mock.patch.object(subject.criterion, "importance_sample_ratio", 0.0):
        yield


@contextlib.contextmanager
def same_points() -> Iterator[None]:
    """Every draw of random points [..., P, 2] gives the same P points, whoever draws."""

    def rand(*shape, device=None, **kwargs) -> Tensor:
        shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        generator = torch.Generator().manual_seed(0)
        points = original(shape[-2:], generator=generator)
        return points.expand(shape).clone().to(device or "cpu")

    original = torch.rand
    with mock.patch.object(torch, "rand", rand):
        yield


def _batch(cfg: CfgNode, setting: Setting) -> list[dict]:
    """Random images with overlapping ellipses as ground truth."""
    generator = torch.Generator().manual_seed(0)
    height, width = setting.size
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    batch = []
    for _ in range(setting.images):
        image = torch.randint(0, 256, (3, height, width), generator=generator).float()
        draw = torch.rand(setting.objects, 4, generator=generator)
        masks = torch.stack(
            [
                ((y - cy) / (0.05 + 0.25 * a)) ** 2 + ((x - cx) / (0.05 + 0.25 * b)) ** 2 < 1
                for cy, cx, a, b in draw
            ]
        )
        labels = torch.randint(0, classes, (setting.objects,), generator=generator)
        instances = Instances((height, width), gt_classes=labels, gt_masks=masks)
        batch.append({"image": image, "instances": instances})
    return batch


def _fix_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            module.eval()
            module.requires_grad_(False)


def _freeze_stem(model: nn.Module, stages: int) -> None:
    encoder = model.model.pixel_level_module.encoder
    embedder = getattr(encoder, "embedder", None)
    if embedder is None:
        return
    embedder.requires_grad_(False)
    for stage in list(encoder.encoder.stages)[: stages - 1]:
        stage.requires_grad_(False)
