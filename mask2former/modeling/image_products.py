"""Matrix products of rows that belong to images with a matrix of each image.

How many rows an image has differs from image to image and from step to step. Behind an op of
``torch.library`` these numbers are data and not sizes, so ``torch.compile`` does not care.
"""

import torch
from torch import Tensor


def products_by_image(rows: Tensor, matrices: Tensor, counts: Tensor) -> Tensor:
    """``rows[i] @ matrices[image of i]``. A matrix is read once, and so is its gradient written.

    Differentiable once. Under autocast, computed in autocast's type.

    Args:
        rows: [N, C], first those of group 0, image by image, then those of group 1, ... (a group is
            a prediction).
        matrices: [B, C, X].
        counts: int64 [groups, B] on the CPU; their sum is N.

    Returns:
        [N, X].
    """
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        rows, matrices = rows.to(dtype), matrices.to(dtype)
    return _products(rows, matrices, counts)


@torch.library.custom_op("mask2former::products_by_image", mutates_args=())
def _products(rows: Tensor, matrices: Tensor, counts: Tensor) -> Tensor:
    result = rows.new_empty(len(rows), matrices.shape[2])
    for image, (of_image, target) in enumerate(_by_image(counts, rows, result)):
        _scatter(torch.cat(of_image) @ matrices[image], target)
    return result


@_products.register_fake
def _(rows: Tensor, matrices: Tensor, counts: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], matrices.shape[2])


@torch.library.custom_op("mask2former::products_by_image_backward", mutates_args=())
def _products_backward(
    grad: Tensor, rows: Tensor, matrices: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    grad_rows, grad_matrices = rows.new_empty(rows.shape), matrices.new_empty(matrices.shape)
    for image, parts in enumerate(_by_image(counts, grad, rows, grad_rows)):
        of_grad, of_rows, target = parts
        of_image = torch.cat(of_grad)  # [n, X]
        _scatter(of_image @ matrices[image].mT, target)
        torch.mm(torch.cat(of_rows).mT, of_image, out=grad_matrices[image])
    return grad_rows, grad_matrices


@_products_backward.register_fake
def _(grad: Tensor, rows: Tensor, matrices: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), matrices.new_empty(matrices.shape)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_products_backward(grad, *ctx.saved_tensors), None


_products.register_autograd(
    _backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
)


def _by_image(counts: Tensor, *tensors: Tensor):
    """Per image, for each tensor the views of its rows, one a group."""
    images = counts.shape[1]
    views = [tensor.split(counts.flatten().tolist()) for tensor in tensors]
    for image in range(images):
        yield [view[image::images] for view in views]


def _scatter(rows: Tensor, targets: tuple[Tensor, ...]) -> None:
    for target, part in zip(targets, rows.split([len(t) for t in targets])):
        target.copy_(part)
