"""Any timm model with feature maps of strides 4 to 32 as a detectron2 backbone."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import timm
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from ..errors import BackboneError
from .padding import crop_to_image, pad_to_multiple
from .timm_weights import check_name, create_model

logger = logging.getLogger(__name__)

_KEY = "MODEL.TIMM"
# detectron2's name of a stage tells its stride: res2 has 4.
_NAME_OF_STRIDE = {2**k: f"res{k}" for k in range(1, 8)}
_NORMS = {"": lambda m: m, "FrozenBN": freeze_batch_norm_2d, "SyncBN": convert_sync_batchnorm}


class TimmBackbone(Backbone):
    """Feature maps of a timm model, named ``res2`` ... ``res5`` after their strides 4 ... 32.

    Parameter names are timm's, below ``model.``.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str | None = None,
        pretrained_file: str = "",
        out_indices: Sequence[int] = (),
        freeze_at: int = 0,
        drop_path_rate: float = 0.0,
        use_checkpoint: bool = False,
        norm: str = "",
        in_chans: int = 3,
        options: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            name: of the model in timm, perhaps with a tag of its weights (``.fb_in22k``).
            pretrained: see :func:`~mask2former.modeling.backbone.timm_weights.create_model`.
            pretrained_file: a local weights file, which wins over ``pretrained``.
            out_indices: which of timm's feature maps, counted from the end where negative; empty:
                those of strides 4, 8, 16 and 32.
            freeze_at: 1 freezes what comes before the first returned stage, k > 1 also the first
                k - 1 stages. Frozen parts stay in evaluation mode.
            drop_path_rate: stochastic depth, for models that have it.
            use_checkpoint: recompute activations in the backward pass.
            norm: ``""``, ``"FrozenBN"`` or ``"SyncBN"``: what becomes of batch norms.
            in_chans: channels of the images.
            options: further keyword arguments of ``timm.create_model``.

        Raises:
            BackboneError: timm has no such model or feature maps, or it has no weights.
        """
        super().__init__()
        if norm not in _NORMS:
            raise BackboneError(f"{_KEY}.NORM {norm!r} must be one of {list(_NORMS)}")
        check_name(name, _KEY)
        options = {**_any_image_size(name), **(options or {}), "in_chans": in_chans}
        if drop_path_rate:
            options["drop_path_rate"] = drop_path_rate
        # timm gives features in the order of the network, whatever the order of the indices.
        indices = sorted(out_indices, key=lambda i: (i < 0, i)) or _default_indices(name, options)
        model = create_model(
            name,
            pretrained=pretrained,
            file=pretrained_file,
            key=_KEY,
            options={**options, "features_only": True, "out_indices": indices},
        )
        self.model = _NORMS[norm](model)
        if use_checkpoint:
            _checkpoint(self.model, name)
        # Extractors that say nothing return [B, C, H, W].
        self._channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        strides, channels = model.feature_info.reduction(), model.feature_info.channels()
        self._out_features = _feature_names(name, strides)
        self._out_feature_strides = dict(zip(self._out_features, strides))
        self._out_feature_channels = dict(zip(self._out_features, channels))
        self._frozen = _modules_to_freeze(self.model, name, freeze_at)
        self.train()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: images, ``[B, in_chans, H, W]``; H and W may be any, the model sees zeros up to the
                next multiple of its coarsest stride.

        Returns:
            ``resK``: ``[B, C_K, H / 2^K, W / 2^K]``, sides rounded up.
        """
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, self.size_divisibility)
        features = {}
        for name, feature in zip(self._out_features, self.model(padded)):
            stride = self._out_feature_strides[name]
            if self._channels_last:  # timm's Swin
                feature = feature.permute(0, 3, 1, 2)
            features[name] = crop_to_image(feature, height, width, stride)
        return features

    def train(self, mode: bool = True) -> TimmBackbone:
        """As always, but frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            nn.Module.train(module, False)
        return self

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride."""
        return max(self._out_feature_strides.values())


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg, input_shape: ShapeSpec) -> TimmBackbone:
    """The backbone that ``MODEL.TIMM`` describes.

    With MODEL.WEIGHTS no pretrained weights are read: those are the whole model's.
    """
    keys = cfg.MODEL.TIMM
    trained = bool(cfg.MODEL.WEIGHTS)
    return TimmBackbone(
        keys.NAME,
        pretrained=None if trained else keys.PRETRAINED,
        pretrained_file="" if trained else keys.PRETRAINED_FILE,
        out_indices=keys.OUT_INDICES,
        freeze_at=keys.FREEZE_AT,
        drop_path_rate=keys.DROP_PATH_RATE,
        use_checkpoint=keys.USE_CHECKPOINT,
        norm=keys.NORM,
        in_chans=input_shape.channels,
        options={key.lower(): value for key, value in keys.OPTIONS.items()},
    )


def _any_image_size(name: str) -> dict[str, Any]:
    """Swin-like models insist on the size they were made for, unless they are told not to."""
    if not getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        return {}
    # The builder passes keywords on to a class of its module, whose name it does not tell.
    module = inspect.getmodule(timm.model_entrypoint(name.split(".")[0]))
    takes = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
        and "strict_img_size" in inspect.signature(kind.__init__).parameters
        and hasattr(kind, "forward_features")
    ]
    if takes:
        return {"strict_img_size": False}
    logger.warning(
        "%s.NAME %s: timm declares it for one image size only. Give that size as "
        "%s.OPTIONS.IMG_SIZE and train and test at it, or choose a model without this limit.",
        _KEY,
        name,
        _KEY,
    )
    return {}


def _default_indices(name: str, options: dict[str, Any]) -> list[int]:
    """The indices of strides 4, 8, 16 and 32."""
    probe = create_model(
        name, pretrained=None, file="", key=_KEY, options={**options, "features_only": True}
    )
    strides = probe.feature_info.reduction()
    wanted = [4, 8, 16, 32]
    if any(strides.count(stride) != 1 for stride in wanted):
        raise BackboneError(
            f"{_KEY}.NAME {name} has features of strides {strides}, but {wanted} are needed once "
            "each. Plain transformers have one stride only: use MODEL.BACKBONE.NAME D2ViTAdapter "
            f"with MODEL.VIT_ADAPTER.ENCODER {name}; others may do with {_KEY}.OUT_INDICES."
        )
    # Not every model's features are counted from its first one (DLA).
    return [probe.feature_info.out_indices[strides.index(stride)] for stride in wanted]


def _feature_names(name: str, strides: Sequence[int]) -> list[str]:
    names = [_NAME_OF_STRIDE.get(stride, "") for stride in strides]
    if "" in names or any(a >= b for a, b in pairwise(strides)):
        raise BackboneError(
            f"{_KEY}.OUT_INDICES select features of {name} with strides {list(strides)}; each must "
            f"be another one of {list(_NAME_OF_STRIDE)}, in ascending order"
        )
    return names


def _checkpoint(model: nn.Module, name: str) -> None:
    target = model if hasattr(model, "set_grad_checkpointing") else getattr(model, "model", None)
    try:
        target.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise BackboneError(
            f"{_KEY}.USE_CHECKPOINT: timm's {name} cannot checkpoint activations; set it to False"
        ) from error


def _modules_to_freeze(model: nn.Module, name: str, freeze_at: int) -> list[nn.Module]:
    """Freezes parameters in the order in which the model defines them, up to the chosen stage.

    Returns:
        The largest modules all of whose parameters, at least one, are frozen.
    """
    if freeze_at == 0:
        return []
    stages = model.feature_info.module_name()
    if not 0 < freeze_at <= len(stages) + 1:
        raise BackboneError(
            f"{_KEY}.FREEZE_AT is {freeze_at}; {name} has a stem and {len(stages)} stages, so it "
            f"must be from 0 to {len(stages) + 1}"
        )
    stage = stages[max(freeze_at - 2, 0)] + "."
    # Feature extractors flatten "stages.0" to "stages_0" or add "model." in front.
    names = [
        re.sub(r"[._]", ".", key.removeprefix("model.")) for key, _ in model.named_parameters()
    ]
    inside = [i for i, key in enumerate(names) if key.startswith(re.sub(r"[._]", ".", stage))]
    if not inside:
        raise BackboneError(
            f"{_KEY}.FREEZE_AT: no parameters below {stage} of {name}; only 0 is possible"
        )
    last = inside[0] if freeze_at == 1 else inside[-1] + 1
    for parameter in list(model.parameters())[:last]:
        parameter.requires_grad_(False)
    return _frozen_modules(model)


def _frozen_modules(module: nn.Module) -> list[nn.Module]:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return [module]
    return [frozen for child in module.children() for frozen in _frozen_modules(child)]
