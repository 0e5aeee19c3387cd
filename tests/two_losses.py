"""The smallest model with two losses, and a trainer of it."""

import torch
from torch import nn

from detectron2.engine import SimpleTrainer


class LossModel(nn.Module):
    """Two losses of one weight."""

    def __init__(self, value=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))

    def forward(self, data):
        return {"loss_a": (self.weight * data).sum(), "loss_b": (self.weight * 2).sum()}


def simple_trainer(value=1.0, batches=(1.0, 2.0, 3.0, 4.0), trainer=SimpleTrainer, **kwargs):
    model = LossModel(value)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return trainer(model, [torch.tensor([b]) for b in batches], optimizer, **kwargs)
