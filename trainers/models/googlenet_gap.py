"""GoogLeNet-GAP: GoogLeNet up to its inception 4e, one convolution more, a global pooling (paper, section 4.2.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from has_dali.trainers.models.heads import Localiser, he_normal

# Maps of the four branches: 1 x 1 | 1 x 1 then 3 x 3 | 1 x 1 then 5 x 5 | max pooling then 1 x 1.
_INCEPTION = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
}


class GoogLeNetGAP(Localiser):
    """224 x 224 pixels give 64 maps of 112 x 112 after conv1 and 1024 maps of 14 x 14 at the end.

    Batch norm and ReLU follow every convolution; local response normalisation stands where GoogLeNet has it; pooling
    rounds sizes up. No dropout unless asked for, no auxiliary classifiers, no groups. Convolutions start from
    N(0, sqrt(2 / fan in)) (He et al., 2015); the paper is silent.

    Args:
        classes: number of classes.
        dropout: rate before the Linear layer.
        head: ``pool``, ``conv1``, ``conv1_fill`` of ``Localiser``; ``conv1`` hides after conv1's batch norm and ReLU.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, classes: int, *, dropout: float = 0.0, **head: Any) -> None:
        trunk = nn.Sequential()
        trunk.add_module("pool1", _pool())
        trunk.add_module("norm1", nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75))
        trunk.add_module("conv2_reduce", Conv2dNormActivation(64, 64, 1))
        trunk.add_module("conv2", Conv2dNormActivation(64, 192, 3))
        trunk.add_module("norm2", nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75))
        trunk.add_module("pool2", _pool())
        channels = 192
        for name, branches in _INCEPTION.items():
            if name == "4a":
                trunk.add_module("pool3", _pool())
            inception = _Inception(channels, *branches)
            trunk.add_module(f"inception_{name}", inception)
            channels = inception.out_channels
        trunk.add_module("cam_conv", Conv2dNormActivation(channels, 1024, 3))
        stem = Conv2dNormActivation(3, 64, 7, stride=2)
        super().__init__(stem, trunk, 1024, classes, dropout=dropout, smallest_side=15, **head)
        he_normal(self)


class _Inception(nn.Module):
    def __init__(self, channels: int, plain: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.out_channels = plain + three[1] + five[1] + pooled
        self.branches = nn.ModuleList(
            [
                Conv2dNormActivation(channels, plain, 1),
                nn.Sequential(Conv2dNormActivation(channels, three[0], 1), Conv2dNormActivation(*three, 3)),
                nn.Sequential(Conv2dNormActivation(channels, five[0], 1), Conv2dNormActivation(*five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), Conv2dNormActivation(channels, pooled, 1)),
            ]
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(maps) for branch in self.branches], dim=1)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
