"""Networks that localise: convolutions, one pooling of the whole map, one Linear layer (paper, section 3.1.3).

The Linear layer's weights, put on the maps before the pooling, show where the evidence for a class lies (eq. 1).
"""

from __future__ import annotations

import torch
from torch import nn

from has_dali.kernels.policy import HideAndSeek, checked_probability
from has_dali.nn import HideAndSeek2d
from has_dali.trainers.models.trunk import split_trunk, torchvision_model

POOLS = ("gap", "gmp")


class Localiser(nn.Module):
    """stem -> [hide] -> trunk -> pooling over space -> dropout -> Linear.

    The stem is the first convolution with the normalisation and activation that follow it: what it gives is hidden
    where ``conv1`` is set (paper, section 4.3.4: "conv1-HaS"), in training only. The Linear layer starts from
    N(0, 0.01) and a bias of zero.

    Args:
        stem: images (N, 3, H, W) to the first maps.
        trunk: first maps to the last ones, (N, channels, h, w).
        channels: number of the last maps.
        classes: number of classes, at least 1.
        pool: "gap", the mean over space, or "gmp", the maximum (paper, Table IV).
        dropout: rate before the Linear layer.
        conv1: what is hidden of the first maps, in their pixels; None: nothing.
        conv1_fill: value of hidden units, a number or "running_mean" of each map; the paper does not say which.
        smallest_side: shortest image side, in pixels, that leaves a map.

    Attributes:
        classifier: the Linear layer, whose weights serve the class maps too.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind.
    """

    def __init__(
        self,
        stem: nn.Module,
        trunk: nn.Module,
        channels: int,
        classes: int,
        *,
        pool: str = "gap",
        dropout: float = 0.0,
        conv1: HideAndSeek | None = None,
        conv1_fill: float | str = 0.0,
        smallest_side: int = 1,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r}: expected 'gap' (mean over space) or 'gmp' (maximum)")
        if classes < 1:
            raise ValueError(f"classes={classes}: expected at least 1")
        if conv1 is not None and not isinstance(conv1, HideAndSeek):
            raise TypeError(f"conv1: expected a HideAndSeek or None, got {type(conv1).__name__}")
        if isinstance(conv1_fill, str) and conv1_fill != "running_mean":
            raise ValueError(f"conv1_fill={conv1_fill!r}: expected a number or 'running_mean'")
        self.pool, self.smallest_side = pool, smallest_side
        self.stem = stem
        self.hide_conv1 = None if conv1 is None else HideAndSeek2d(conv1, conv1_fill)
        self.trunk = trunk
        self.dropout = nn.Dropout(checked_probability("dropout", dropout))
        self.classifier = nn.Linear(channels, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: torch.Tensor, sample_ids: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """Logits (N, classes) of images (N, 3, H, W).

        Args:
            images: normalised floats.
            sample_ids: (N,) int64, with ``epoch`` the keys of ``conv1``'s masks; None: drawn from torch's generator.
            epoch: makes the masks of each epoch differ.
        """
        return self.logits(self.features(images, sample_ids, epoch))

    def features(self, images: torch.Tensor, sample_ids: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """The last maps (N, K, h, w) of images (N, 3, H, W); arguments as for ``forward``.

        Raises:
            ValueError: the images have another shape or are too small.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"{type(self).__name__}: images: expected (N, 3, H, W), got {tuple(images.shape)}")
        height, width = images.shape[2:]
        if min(height, width) < self.smallest_side:
            raise ValueError(
                f"{type(self).__name__}: images of {height} x {width} pixels leave no map:"
                f" expected sides of at least {self.smallest_side}; raise the size or take 'smallnet'"
            )
        maps = self.stem(images)
        if self.hide_conv1 is not None:
            maps = self.hide_conv1(maps, sample_ids, epoch)
        return self.trunk(maps)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of the last maps: what ``forward`` does after ``features``."""
        pooled = features.mean(dim=(2, 3)) if self.pool == "gap" else features.amax(dim=(2, 3))
        return self.classifier(self.dropout(pooled))

    def class_maps(self, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Class activation maps: the last maps summed with the class's weights, without the bias (paper, eq. 1).

        With "gap" and outside training, ``logits - bias`` is their mean over space; "gmp" uses the same weights.

        Args:
            features: (N, K, h, w), from ``features``.
            classes: (N, M) integers, the classes to map for each image.

        Returns:
            (N, M, h, w) float32 (float64 for such features), outside autocast.

        Raises:
            ValueError: ``classes`` has another shape, or names a class that does not exist.
        """
        if classes.ndim != 2 or len(classes) != len(features) or classes.is_floating_point():
            raise ValueError(
                f"classes: expected integers of shape ({len(features)}, M), one row an image,"
                f" got {classes.dtype} of shape {tuple(classes.shape)}"
            )
        count = self.classifier.out_features
        low, high = (int(classes.min()), int(classes.max())) if classes.numel() else (0, 0)
        if low < 0 or high >= count:
            raise ValueError(f"classes: expected 0 to {count - 1}, got values from {low} to {high}")
        with torch.autocast(features.device.type, enabled=False):
            dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
            weights = self.classifier.weight.to(dtype)[classes.long()]
            return torch.einsum("nmk,nkhw->nmhw", weights, features.to(dtype))

    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the pixels; its filters are Fig. 4 of the paper."""
        return next(module for module in self.stem.modules() if isinstance(module, nn.Conv2d))


class TrunkLocaliser(Localiser):
    """The convolutional trunk of a torchvision network, with random weights, under a pooling and a Linear layer.

    Everything from the network's own pooling on is left out (torchvision's VGG and AlexNet keep their last max
    pooling, as it comes before that). ``conv1`` hides after the network's first convolution and, where they follow
    it directly, its normalisation and activation; max pooling comes later.

    Args:
        name: of a torchvision classification network, such as "resnet18".
        classes, pool, dropout, conv1, conv1_fill: as for ``Localiser``.

    Raises:
        ValueError: the name is unknown, or the network pools no maps (vision transformers).
    """

    def __init__(
        self,
        name: str,
        classes: int,
        *,
        pool: str = "gap",
        dropout: float = 0.0,
        conv1: HideAndSeek | None = None,
        conv1_fill: float | str = 0.0,
    ) -> None:
        stem, trunk, channels = split_trunk(torchvision_model(name), name)
        super().__init__(stem, trunk, channels, classes, pool=pool, dropout=dropout, conv1=conv1, conv1_fill=conv1_fill)


def he_normal(model: nn.Module) -> None:
    """Set every convolution to N(0, sqrt(2 / fan in)) and its bias to zero (He et al., 2015, eq. 10)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
