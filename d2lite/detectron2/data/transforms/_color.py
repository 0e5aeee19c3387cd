"""Augmentations of colour: brightness, contrast, saturation, lighting."""

import numpy as np
from fvcore.transforms.transform import BlendTransform, Transform

from detectron2.data.transforms.augmentation import Augmentation


class _RandomBlend(Augmentation):
    """weight * image + (1 - weight) * something, the weight uniform in [min, max]."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(
            src_image=self._blend_with(image), src_weight=1 - weight, dst_weight=weight
        )

    def _blend_with(self, image: np.ndarray) -> np.ndarray | float:
        raise NotImplementedError


class RandomContrast(_RandomBlend):
    """Blend with the image's mean: below 1 less contrast, above 1 more.

    Args:
        intensity_min, intensity_max: range of the weight of the image.
    """

    def _blend_with(self, image: np.ndarray) -> float:
        return image.mean()


class RandomBrightness(_RandomBlend):
    """Blend with black: below 1 darker, above 1 brighter (clipped).

    Args:
        intensity_min, intensity_max: range of the weight of the image.
    """

    def _blend_with(self, image: np.ndarray) -> float:
        return 0


class RandomSaturation(_RandomBlend):
    """Blend with the grey image: below 1 paler, above 1 more colourful.

    The grey weights (0.299, 0.587, 0.114) meet the channels in the order given, so strictly they
    are for RGB images; for BGR the effect is nearly the same.

    Args:
        intensity_min, intensity_max: range of the weight of the image.
    """

    def _blend_with(self, image: np.ndarray) -> np.ndarray:
        if image.shape[-1] != 3:
            raise AssertionError(f"RandomSaturation works on 3 channels, got {image.shape}")
        return image.dot([0.299, 0.587, 0.114])[:, :, None]


class RandomLighting(Augmentation):
    """Shift of the colour along the principal components of ImageNet's pixels.

    Krizhevsky et al., NeurIPS 2012, section 4.1. For images in RGB order.

    Args:
        scale: standard deviation of the weights.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._init(locals())
        # Columns: principal components; values: their standard deviations (0..1 images).
        self.eigen_vecs = np.array(
            [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
        )
        self.eigen_vals = np.array([0.2175, 0.0188, 0.0045])

    def get_transform(self, image: np.ndarray) -> Transform:
        if image.shape[-1] != 3:
            raise AssertionError(f"RandomLighting works on 3 channels, got {image.shape}")
        weights = np.random.normal(scale=self.scale, size=3)
        shift = self.eigen_vecs.dot(weights * self.eigen_vals)
        return BlendTransform(src_image=shift, src_weight=1.0, dst_weight=1.0)
