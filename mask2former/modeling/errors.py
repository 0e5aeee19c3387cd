"""Errors of the network and its criterion that a trainer may want to catch and enrich."""


class NonFiniteCostError(FloatingPointError):
    """A matching cost is NaN or infinite, so no assignment exists.

    The matcher knows the prediction and the images of its batch; whoever catches this error knows
    the iteration, the file names and the learning rate, and can put them into its own message.

    Attributes:
        layer: the first prediction concerned: ``"final"`` or ``"aux <k>"`` (k as in the loss names,
            so ``"aux 0"`` are the learned queries before the first decoder layer).
        layers: all predictions concerned, in the order final, aux 0, aux 1, ...
        images: indices into the batch of the images concerned, ascending.
    """

    def __init__(self, layers: list[str], images: list[int]) -> None:
        self.layer = layers[0]
        self.layers = layers
        self.images = images
        super().__init__(
            f"matching costs are NaN or infinite in prediction {', '.join(layers)} for image(s) "
            f"{', '.join(map(str, images))} of the batch. Usual causes are a learning rate that is "
            "too high (SOLVER.BASE_LR), missing gradient clipping (SOLVER.CLIP_GRADIENTS) or "
            "float16 overflow (SOLVER.AMP)."
        )


class BackboneError(ValueError):
    """Settings or pretrained weights of a backbone that its user can mend.

    The message names the key or file and the remedy.
    """


class CompilerError(ValueError):
    """torch.compile was asked for, but has no compiler on this machine.

    The message names the key and the remedy.
    """
