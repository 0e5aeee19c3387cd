"""What hierarchical transformers (Swin, DiNAT) have in common as detectron2 backbones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import BackboneError

__all__ = ["StageFeatures"]


class StageFeatures:
    """The stages of a network by detectron2's names: stage i is ``res<i + 2>``.

    A mixin that stands before the network and ``Backbone``, whose ``output_shape`` reads what
    ``declare_features`` sets. The network lists the channels of its stages in ``num_features``.
    """

    #: Section of the config that errors name, such as ``MODEL.SWIN``.
    section: str

    @classmethod
    def stage_indices(cls, out_features: Sequence[str], stages: int) -> list[int]:
        """Stages, counted from 0, of names out of ``res2`` ... ``res<stages + 1>``.

        Raises:
            BackboneError: for no name, or an unknown one.
        """
        names = _names(stages)
        if not out_features or any(name not in names for name in out_features):
            raise BackboneError(
                f"{cls.section}.OUT_FEATURES {list(out_features)} must be chosen from {names}"
            )
        return [names.index(name) for name in out_features]

    def declare_features(self, out_features: Sequence[str], finest_stride: int) -> None:
        """Sets what detectron2 reads; strides double from ``finest_stride``, that of ``res2``."""
        names = _names(len(self.num_features))
        self._out_features = list(out_features)
        self._out_feature_strides = {name: finest_stride * 2**i for i, name in enumerate(names)}
        self._out_feature_channels = dict(zip(names, self.num_features))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images ``[B, C, H, W]`` to what the network's ``forward`` gives.

        Raises:
            ValueError: if ``x`` is not a batch of images.
        """
        if x.dim() != 4:
            raise ValueError(f"expected images [B, C, H, W], got shape {tuple(x.shape)}")
        return super().forward(x)

    @property
    def size_divisibility(self) -> int:
        """Image sides are padded to multiples of the coarsest stride."""
        return 32


def _names(stages: int) -> list[str]:
    return [f"res{i + 2}" for i in range(stages)]
