"""smallnet: a localiser for pictures of 64 x 64 pixels that trains on a few CPU cores."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torchvision.ops import Conv2dNormActivation

from has_dali.trainers.models.heads import Localiser, he_normal

# (maps, kernel, stride) at width 1. A map of 8 x 8 keeps two thirds of the work in layers that see much of the object.
_LAYERS = ((24, 3, 2), (32, 3, 2), (64, 3, 1), (64, 3, 2), (96, 3, 1), (128, 3, 1))


class SmallGAP(Localiser):
    """Six 3 x 3 convolutions, each with batch norm and ReLU; strides instead of poolings.

    64 x 64 pixels give 24 maps of 32 x 32 after conv1 (a cell of 5 or 11 pixels of AlexNet's 55 is one of 3 or 6
    here) and 128 maps of 8 x 8 at the end; one unit there sees 55 x 55 pixels. At width 1 and 20 classes: 232,140
    parameters and 20.1 million multiply-adds (40.3 MFLOPs) an image forward, three times that in training.

    Args:
        classes: number of classes.
        width: multiplies the numbers of maps (rounded to multiples of 8, at least 8); the work grows with its square.
        dropout: rate before the Linear layer.
        head: ``pool``, ``conv1``, ``conv1_fill`` of ``Localiser``; ``conv1`` hides after conv1's batch norm and ReLU.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, classes: int, *, width: float = 1.0, dropout: float = 0.0, **head: Any) -> None:
        if not (math.isfinite(width) and width > 0):
            raise ValueError(f"width={width!r}: expected a number above 0, such as 0.5 or 2")
        layers: list[nn.Module] = []
        channels = 3
        for maps, kernel, stride in _LAYERS:
            out = max(8, 8 * round(maps * width / 8))
            layers.append(Conv2dNormActivation(channels, out, kernel, stride))
            channels = out
        super().__init__(layers[0], nn.Sequential(*layers[1:]), channels, classes, dropout=dropout, **head)
        he_normal(self)
