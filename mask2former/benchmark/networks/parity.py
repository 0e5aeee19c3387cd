"""No figure without parity: how far two results are apart, and how far they may be."""

from torch import Tensor

# Of the largest value of a tensor; PERFORMANCE: logits 1e-4.
TOLERANCE = 1e-4
# The total loss, and the norm of all gradients, with the same random points.
TOLERANCE_LOSS = 1e-5
# The total loss where points are chosen by uncertainty: those that tie change places.
TOLERANCE_UNCERTAIN = 1e-4
TOLERANCE_GRADIENT = 1e-3
# Of its norm, where both compute in 16 bits: attention masks are thresholded, so that single
# values may differ by anything.
TOLERANCE_16_BIT = 0.1
# Share of pixels at which two label maps agree.
MAP_AGREEMENT = 0.9999


class ParityError(Exception):
    """Two implementations give different results, so that none of them is timed."""


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value of ``b``."""
    a, b = a.detach().double(), b.detach().double()
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()


def relative_norm(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over the norm of ``b``."""
    a, b = a.detach().double(), b.detach().double()
    return ((a - b).norm() / b.norm().clamp(min=1e-12)).item()


def require(found: dict[str, float], tolerance: float) -> None:
    """Raises ParityError unless all of the differences are at most ``tolerance``."""
    wrong = {name: value for name, value in found.items() if not value <= tolerance}
    if wrong:
        text = ", ".join(f"{name} {value:.1e}" for name, value in wrong.items())
        raise ParityError(f"{text}; at most {tolerance:.0e} is allowed")


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of equal values."""
    return (a == b).double().mean().item() if a.numel() else 1.0


def in_words(found: dict[str, float]) -> str:
    """One line about the differences."""
    return "parity: " + ", ".join(f"{name} {value:.1e}" for name, value in found.items())
