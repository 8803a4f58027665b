"""AlexNet-GAP: AlexNet's five convolutions, two more, and a global pooling (paper, section 4.2.1)."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.ops import Conv2dNormActivation

from has_dali.trainers.models.heads import Localiser, he_normal

NORMS = ("lrn", "bn", "none")


class AlexNetGAP(Localiser):
    """224 x 224 pixels give 96 maps of 55 x 55 after conv1 and 512 maps of 11 x 11 at the end; no groups.

    conv1 11 x 11 / 4, 96 - max 3 / 2 - LRN - conv2 5 x 5, 256 - max 3 / 2 - LRN - conv3 384 - conv4 384 - conv5 256 -
    max 3 / 1 - conv6 512 - conv7 512 (3 x 3 from conv3 on), ReLU after each. The paper gives neither the place of the
    normalisation nor the initialisation. Here convolutions start as He et al. (2015) propose, N(0, sqrt(2 / fan in))
    and zero biases, which trains from scratch with and without normalisation; with torch's default, whose signal
    shrinks from layer to layer, the loss of a small trial had not moved when this one's had halved.

    Args:
        classes: number of classes.
        norm: "lrn", local response normalisation (5 maps, alpha 1e-4 over the sum of 5, beta 0.75, k 1, as in Caffe)
            after the first two poolings; "bn", batch norm after every convolution; "none".
        dropout: rate before the Linear layer.
        head: ``pool``, ``conv1``, ``conv1_fill`` of ``Localiser``; ``conv1`` hides cells of the 55 x 55 maps after the
            ReLU, before pooling and normalisation.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, classes: int, *, norm: str = "lrn", dropout: float = 0.5, **head: Any) -> None:
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r}: expected one of {', '.join(NORMS)}")
        batch_norm = nn.BatchNorm2d if norm == "bn" else None

        def convolution(channels: int, out: int, kernel: int = 3, **options: int) -> nn.Module:
            return Conv2dNormActivation(channels, out, kernel, norm_layer=batch_norm, **options)

        def response_norm() -> list[nn.Module]:
            return [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)] if norm == "lrn" else []

        stem = convolution(3, 96, 11, stride=4, padding=2)
        trunk = nn.Sequential(
            nn.MaxPool2d(3, 2), *response_norm(),
            convolution(96, 256, 5),
            nn.MaxPool2d(3, 2), *response_norm(),
            convolution(256, 384),
            convolution(384, 384),
            convolution(384, 256),
            nn.MaxPool2d(3, 1),
            convolution(256, 512),
            convolution(512, 512),
        )  # fmt: skip
        super().__init__(stem, trunk, 512, classes, dropout=dropout, smallest_side=63, **head)
        he_normal(self)
