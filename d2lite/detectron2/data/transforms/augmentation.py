"""Base classes: what an augmentation is, what it sees, how a list of them is applied."""

import inspect
import pprint
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

from detectron2._missing import missing_getattr

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "StandardAugInput",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]


class Augmentation:
    """A policy that draws a :class:`Transform` for the input at hand.

    Subclasses implement :meth:`get_transform`; the names of its arguments say what it needs to see:
    ``image``, ``boxes``, ``sem_seg`` or any attribute of the :class:`AugInput` it is called with (a
    single argument is always the image). All draws are from numpy's global generator.
    """

    # Attributes of the input that get_transform receives, found at the first call.
    input_args: tuple[str, ...] | None = None

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Keep constructor arguments (``locals()``) as attributes of the same names."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        """Draw the transform for this input.

        Args:
            args: attributes of the input, see the class. Image: uint8 or float, [H, W] or
                [H, W, C]; boxes: float [N, 4], XYXY; sem_seg: integers [H, W].
        """
        raise NotImplementedError

    def __call__(self, aug_input: "AugInput") -> Transform:
        """Draw a transform, apply it to ``aug_input`` in place, and return it."""
        args = [_attribute(self, aug_input, name) for name in self._input_names()]
        tfm = self.get_transform(*args)
        if not isinstance(tfm, Transform):
            raise AssertionError(
                f"{type(self).__name__}.get_transform must return a Transform, "
                f"got {type(tfm).__name__}"
            )
        aug_input.transform(tfm)
        return tfm

    def _input_names(self) -> tuple[str, ...]:
        if self.input_args is None:
            parameters = inspect.signature(self.get_transform).parameters
            if len(parameters) == 1:
                self.input_args = ("image",)
            else:
                variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
                if any(p.kind in variadic for p in parameters.values()):
                    raise TypeError(
                        f"{type(self).__name__}.get_transform must name its arguments (no *args, "
                        "**kwargs): the names are looked up on the input. Name them, or set the "
                        "class attribute input_args"
                    )
                self.input_args = tuple(parameters)
        return self.input_args

    def _rand_range(
        self, low: float = 1.0, high: float | None = None, size: Any = None
    ) -> np.ndarray:
        """Uniform draw in [low, high), or in [0, low) without ``high``."""
        if high is None:
            low, high = 0.0, low
        return np.random.uniform(low, high, [] if size is None else size)

    def __repr__(self) -> str:
        try:
            shown = self._shown_parameters()
        except (AttributeError, TypeError):
            return super().__repr__()
        return f"{type(self).__name__}({', '.join(shown)})"

    __str__ = __repr__

    def _shown_parameters(self) -> list[str]:
        """``name=value`` of each constructor parameter that differs from its default."""
        shown = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self":
                continue
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError("cannot show *args")
            value = getattr(self, name)
            if parameter.default is value:
                continue
            text = pprint.pformat(value)
            shown.append(f"{name}={'...' if chr(10) in text else text}")
        return shown


def _attribute(aug: Augmentation, aug_input: Any, name: str) -> Any:
    try:
        return getattr(aug_input, name)
    except AttributeError as error:
        raise AttributeError(
            f"{type(aug).__name__}.get_transform needs input attribute '{name}', "
            f"but it is not an attribute of {type(aug_input).__name__}!"
        ) from error


class _TransformToAug(Augmentation):
    """A fixed transform as an augmentation."""

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm

    def _input_names(self) -> tuple[str, ...]:
        return ()

    def __repr__(self) -> str:
        return repr(self.tfm)

    __str__ = __repr__


def as_augmentation(tfm_or_aug: Augmentation | Transform) -> Augmentation:
    """The augmentation itself, or one that always returns the given transform.

    Raises:
        AssertionError: neither of the two.
    """
    if isinstance(tfm_or_aug, Augmentation):
        return tfm_or_aug
    if isinstance(tfm_or_aug, Transform):
        return _TransformToAug(tfm_or_aug)
    raise AssertionError(
        f"Expected an Augmentation or a Transform, got {type(tfm_or_aug).__name__}: {tfm_or_aug!r}"
    )


class AugmentationList(Augmentation):
    """A sequence of augmentations; each sees what the ones before it made.

    Args:
        augs: augmentations or (fixed) transforms.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        super().__init__()
        self.augs = [as_augmentation(aug) for aug in augs]

    def __call__(self, aug_input: "AugInput") -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(str(aug) for aug in self.augs)}]"

    __str__ = __repr__


class AugInput:
    """What augmentations look at and change.

    Other attributes may be set for augmentations of one's own; a subclass then extends
    :meth:`transform`.

    Args:
        image: uint8 0..255 or float, [H, W] or [H, W, C].
        boxes: float [N, 4], XYXY in pixels.
        sem_seg: integers [H, W].
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        _check_image(image)
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply ``tfm`` to everything held, in place."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(
        self, augmentations: Sequence[Augmentation | Transform]
    ) -> TransformList:
        """Apply several in turn; returns the transforms that were drawn."""
        return AugmentationList(augmentations)(self)


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise AssertionError(f"An image must be a numpy array, got {type(image).__name__}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise AssertionError(f"An image must be uint8 or float, got {image.dtype}")
    if image.ndim not in (2, 3):
        raise AssertionError(f"An image must be [H, W] or [H, W, C], got shape {image.shape}")


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: np.ndarray | AugInput
) -> tuple[np.ndarray | AugInput, TransformList]:
    """Apply augmentations to an image, or to an input in place.

    Returns:
        the new image (or the same input object), and the transforms that were drawn.
    """
    if isinstance(inputs, np.ndarray):
        aug_input = AugInput(inputs)
        tfms = aug_input.apply_augmentations(augmentations)
        return aug_input.image, tfms
    return inputs, inputs.apply_augmentations(augmentations)


# Names of earlier releases that mappers still use.
apply_transform_gens = apply_augmentations
TransformGen = Augmentation
StandardAugInput = AugInput

__getattr__ = missing_getattr(__name__)
