"""How far masks are from the ground truth: the terms of the criterion and of the matching costs.

The first two are summed over pairs that belong together; the ``batch_`` ones are of every
prediction with every target.
"""

import torch.nn.functional as F
from torch import Tensor


def dice_loss(inputs: Tensor, targets: Tensor, num_masks: float | Tensor) -> Tensor:
    """Dice loss smoothed by 1, summed over masks and divided by ``num_masks``.

    Args:
        inputs: logits [N, P].
        targets: values in [0, 1], [N, P].
        num_masks: the divisor.
    """
    probs = inputs.sigmoid()
    overlap = 2 * (probs * targets).sum(-1)
    loss = 1 - (overlap + 1) / (probs.sum(-1) + targets.sum(-1) + 1)
    return loss.sum() / num_masks


def sigmoid_ce_loss(inputs: Tensor, targets: Tensor, num_masks: float | Tensor) -> Tensor:
    """Binary cross entropy averaged over points, summed over masks, divided by ``num_masks``.

    Args:
        inputs: logits [N, P].
        targets: values in [0, 1], [N, P].
        num_masks: the divisor.
    """
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return loss.mean(1).sum() / num_masks


def batch_dice_loss(inputs: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every prediction against every target, smoothed by 1.

    Args:
        inputs: logits [..., Q, P].
        targets: values in [0, 1], [..., G, P].

    Returns:
        [..., Q, G] in [0, 1].
    """
    probs = inputs.sigmoid()
    overlap = 2 * probs @ targets.mT
    total = probs.sum(-1, keepdim=True) + targets.sum(-1)[..., None, :]
    return 1 - (overlap + 1) / (total + 1)


def batch_sigmoid_ce_loss(inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross entropy of every prediction against every target.

    Args:
        inputs: logits [..., Q, P].
        targets: values in [0, 1], [..., G, P].

    Returns:
        [..., Q, G].
    """
    # -t log s(x) - (1 - t) log(1 - s(x)) = softplus(x) - t x: one product instead of two.
    as_background = F.softplus(inputs).sum(-1, keepdim=True)
    return (as_background - inputs @ targets.mT) / inputs.shape[-1]


# Published names; TorchScript brings nothing here any more.
dice_loss_jit = dice_loss
sigmoid_ce_loss_jit = sigmoid_ce_loss
batch_dice_loss_jit = batch_dice_loss
batch_sigmoid_ce_loss_jit = batch_sigmoid_ce_loss
