"""The spatial prior module of ViT-Adapter (section 3.2): a small convolutional pyramid."""

from __future__ import annotations

from torch import Tensor, nn

from detectron2.layers import get_norm


class SpatialPriorModule(nn.Module):
    """Convolutions from the image to maps of strides 4, 8, 16 and 32, all as wide as the encoder.

    Batch norm and the channel counts 1, 2, 4, 4 times ``inplanes`` are the published ones.
    """

    def __init__(self, inplanes: int, embed_dim: int, norm: str, in_chans: int = 3) -> None:
        """
        Args:
            inplanes: channels of the stem.
            embed_dim: channels C of every output.
            norm: name for detectron2's ``get_norm``.
            in_chans: channels of the image.
        """
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(in_chans, inplanes, 2, norm),
            *_convolution(inplanes, inplanes, 1, norm),
            *_convolution(inplanes, inplanes, 1, norm),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*_convolution(inplanes, 2 * inplanes, 2, norm))
        self.conv3 = nn.Sequential(*_convolution(2 * inplanes, 4 * inplanes, 2, norm))
        self.conv4 = nn.Sequential(*_convolution(4 * inplanes, 4 * inplanes, 2, norm))
        self.fc1 = nn.Conv2d(inplanes, embed_dim, 1)
        self.fc2 = nn.Conv2d(2 * inplanes, embed_dim, 1)
        self.fc3 = nn.Conv2d(4 * inplanes, embed_dim, 1)
        self.fc4 = nn.Conv2d(4 * inplanes, embed_dim, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``[B, 3, H, W]`` to maps ``[B, C, H/4, W/4]`` ... ``[B, C, H/32, W/32]``."""
        c1 = self.stem(images)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)


def _convolution(inputs: int, outputs: int, stride: int, norm: str) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, get_norm(norm, outputs), nn.ReLU(inplace=True)]
