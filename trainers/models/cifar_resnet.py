"""Residual networks for 32 x 32 pictures, in the two readings that "ResNet-44" has (paper, Table VIII).

The paper's schedule and baselines are those of a code base that builds bottlenecks but counts depth as for basic
blocks: its "ResNet-44/56/110" have 65, 83 and 164 layers. ``block="bottleneck_re"`` builds these, ``block="basic"``
the networks of He et al. (2016, section 4.2) that the names mean elsewhere.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import Conv2dNormActivation

BLOCKS = ("bottleneck_re", "basic")
_PLANES = (16, 32, 64)
_EXPANSION = 4


class CifarResNet(nn.Module):
    """conv 3 x 3 to 16 maps, three stages of (depth - 2) / 6 blocks (strides 1, 2, 2), average pooling, Linear.

    Every convolution is followed by batch norm; ReLU comes after the addition. Convolutions start from
    N(0, sqrt(2 / (k * k * out))), batch norm from the identity, the Linear layer from torch's default.

    Args:
        depth: 6n + 2 with n >= 1, such as 20, 44, 56 or 110.
        classes: number of classes, at least 1.
        block: "bottleneck_re": n bottlenecks a stage (1 x 1, 3 x 3, 1 x 1; planes 16, 32, 64, four times as many maps
            out), a 1 x 1 convolution as the shortcut where a stage starts, hence 9n + 2 layers; "basic": n blocks of
            two 3 x 3 convolutions, and shortcuts without parameters (every second pixel, zeros for the new maps).

    Attributes:
        layers: layers with weights on the longest path, 9n + 2 or 6n + 2.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, depth: int, classes: int, block: str = "bottleneck_re") -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            below = max(8, depth - (depth - 2) % 6)
            raise ValueError(f"cifar_resnet{depth}: expected a depth of 6n + 2, such as {below} or {below + 6}")
        if block not in BLOCKS:
            raise ValueError(f"block={block!r}: expected one of {', '.join(BLOCKS)}")
        if classes < 1:
            raise ValueError(f"classes={classes}: expected at least 1")
        count = (depth - 2) // 6
        bottleneck = block == "bottleneck_re"
        self.layers = (9 if bottleneck else 6) * count + 2
        self.stem = Conv2dNormActivation(3, _PLANES[0], 3)
        self.stages = nn.Sequential()
        channels = _PLANES[0]
        for stage, planes in enumerate(_PLANES):
            blocks = nn.Sequential()
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append((_Bottleneck if bottleneck else _Basic)(channels, planes, stride))
                channels = planes * (_EXPANSION if bottleneck else 1)
            self.stages.append(blocks)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, 3, H, W); 32 x 32 gives maps of 8 x 8 before the pooling."""
        return self.classifier(self.stages(self.stem(images)).mean(dim=(2, 3)))


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out = planes * _EXPANSION
        self.residual = nn.Sequential(
            Conv2dNormActivation(channels, planes, 1),
            Conv2dNormActivation(planes, planes, 3, stride),
            Conv2dNormActivation(planes, out, 1, activation_layer=None),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = Conv2dNormActivation(channels, out, 1, stride, activation_layer=None)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.relu(self.residual(maps) + self.shortcut(maps), inplace=True)


class _Basic(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, planes - channels
        self.residual = nn.Sequential(
            Conv2dNormActivation(channels, planes, 3, stride),
            Conv2dNormActivation(planes, planes, 3, activation_layer=None),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        residual = self.residual(maps)
        if self.stride != 1 or self.new:
            maps = F.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return F.relu(residual + maps, inplace=True)
