"""From a name to a network: the paper's, torchvision's and timm's."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import torchvision
from torch import nn

from has_dali.kernels.policy import HideAndSeek, checked_probability
from has_dali.trainers.models.alexnet_gap import AlexNetGAP
from has_dali.trainers.models.cifar_resnet import CifarResNet
from has_dali.trainers.models.googlenet_gap import GoogLeNetGAP
from has_dali.trainers.models.heads import Localiser, TrunkLocaliser
from has_dali.trainers.models.small_gap import SmallGAP
from has_dali.trainers.models.trunk import torchvision_model

LOCALISERS: dict[str, Callable[..., Localiser]] = {
    "alexnet_gap": AlexNetGAP,
    "googlenet_gap": GoogLeNetGAP,
    "smallnet": SmallGAP,
}
_CIFAR = re.compile(r"cifar_resnet(\d+)")
_CIFAR_DEPTHS = (20, 32, 44, 56, 110)


def model_names() -> tuple[str, ...]:
    """Names that ``build_classifier`` takes; beside these, any "cifar_resnet<6n + 2>" and any "timm/<name>".

    ``build_localiser`` takes the first ones ("alexnet_gap", "googlenet_gap", "smallnet") and torchvision's
    convolutional networks.
    """
    own = (*LOCALISERS, *(f"cifar_resnet{depth}" for depth in _CIFAR_DEPTHS))
    return (*own, *_torchvision_names())


def build_classifier(
    name: str, classes: int, *, block: str = "bottleneck_re", drop_rate: float | None = None
) -> nn.Module:
    """A network with random weights that gives logits (N, classes) for images (N, 3, H, W).

    Args:
        name: one of ``model_names()``, "cifar_resnet<6n + 2>", or "timm/<name>" for any network of timm.
        classes: number of classes, at least 1.
        block: reading of "cifar_resnet" names, "bottleneck_re" or "basic" (see ``CifarResNet``).
        drop_rate: dropout before the classifier; None: the network's default.

    Raises:
        ValueError: an argument is out of range, the name is unknown, or the network has no dropout to set.
        ImportError: a name of timm, which is not installed.
    """
    _check_classes(classes)
    rate = None if drop_rate is None else checked_probability("drop_rate", drop_rate)
    cifar = _CIFAR.fullmatch(name)
    if cifar:
        if rate is not None:
            raise ValueError(f"drop_rate={rate:g}: {name} has no dropout: leave drop_rate out")
        return CifarResNet(int(cifar[1]), classes, block)
    if name in LOCALISERS:
        return LOCALISERS[name](classes, **({} if rate is None else {"dropout": rate}))
    if name.startswith("timm/"):
        return _timm_model(name, classes, rate)
    if name not in _torchvision_names():
        raise ValueError(_unknown(name, model_names()))
    if rate is None:
        return torchvision_model(name, num_classes=classes)
    for argument in ("dropout", "drop_rate"):  # torchvision's families differ
        try:
            return torchvision_model(name, num_classes=classes, **{argument: rate})
        except TypeError as error:
            if f"unexpected keyword argument '{argument}'" not in str(error):
                raise
    raise ValueError(f"drop_rate={rate:g}: {name} has no dropout to set: leave drop_rate out")


def build_localiser(
    name: str,
    classes: int,
    *,
    pool: str = "gap",
    norm: str | None = None,
    dropout: float | None = None,
    width: float = 1.0,
    conv1: HideAndSeek | None = None,
    conv1_fill: float | str = 0.0,
) -> Localiser:
    """A network with random weights that gives logits and class maps.

    Args:
        name: "alexnet_gap", "googlenet_gap", "smallnet", or a convolutional network of torchvision.
        classes: number of classes, at least 1.
        pool: "gap", the mean over space, or "gmp", the maximum (paper, Table IV).
        norm: of "alexnet_gap" alone: "lrn" (its default), "bn" or "none".
        dropout: rate before the Linear layer; None: 0.5 for "alexnet_gap", 0 for all others.
        width: of "smallnet" alone: multiplies its numbers of maps.
        conv1: what is hidden of the first convolution's maps in training (paper, section 4.3.4); None: nothing.
        conv1_fill: value of hidden units, a number or "running_mean".

    Raises:
        ValueError, TypeError: an argument is out of range, of the wrong kind or not this network's; the name is
            unknown, or names a network without a convolutional trunk.
    """
    _check_classes(classes)
    options: dict[str, Any] = {"pool": pool, "conv1": conv1, "conv1_fill": conv1_fill}
    if dropout is not None:
        options["dropout"] = dropout
    if norm is not None:
        if name != "alexnet_gap":
            raise ValueError(f"norm={norm!r}: only alexnet_gap has a choice of norms: leave norm out for {name!r}")
        options["norm"] = norm
    if width != 1:
        if name != "smallnet":
            raise ValueError(f"width={width!r}: only smallnet has a width: leave it at 1 for {name!r}")
        options["width"] = width
    if name in LOCALISERS:
        return LOCALISERS[name](classes, **options)
    if name in _torchvision_names():
        return TrunkLocaliser(name, classes, **options)
    known = (*LOCALISERS, *_torchvision_names())
    if _CIFAR.fullmatch(name) or name.startswith("timm/"):
        raise ValueError(f"model {name!r} does not localise: expected {', '.join(LOCALISERS)} or a CNN of torchvision")
    raise ValueError(_unknown(name, known))


def _torchvision_names() -> list[str]:
    """Classification networks only: detectors, segmenters and video networks live in modules of their own."""
    return torchvision.models.list_models(module=torchvision.models)


def _check_classes(classes: int) -> None:
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes={classes!r}: expected a whole number of classes, at least 1")


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3, cutoff=0.5)
    advice = f"did you mean {', '.join(near)}?" if near else "has_dali.trainers.models.model_names() lists the names"
    return f"model {name!r} is unknown: {advice}"


def _timm_model(name: str, classes: int, rate: float | None) -> nn.Module:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(f"model {name!r} needs timm ({error}): pip install timm") from error
    bare = name.removeprefix("timm/")
    if not timm.is_model(bare):
        raise ValueError(_unknown(name, [f"timm/{known}" for known in timm.list_models()]))
    options = {} if rate is None else {"drop_rate": rate}
    try:
        return timm.create_model(bare, pretrained=False, num_classes=classes, **options)
    except TypeError as error:
        if "drop_rate" not in str(error):
            raise
        raise ValueError(f"drop_rate={rate:g}: {name} has no dropout to set: leave drop_rate out") from None
