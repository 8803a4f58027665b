"""AlexNet-GAP, GoogLeNet-GAP and smallnet layer by layer: shapes, parameters and work counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from has_dali import HideAndSeek
from has_dali.trainers.models.alexnet_gap import AlexNetGAP
from has_dali.trainers.models.googlenet_gap import GoogLeNetGAP
from has_dali.trainers.models.heads import Localiser
from has_dali.trainers.models.small_gap import SmallGAP

# Weights, then biases, layer by layer; conv1 to conv7 and the Linear layer to 1000 classes.
ALEXNET_WEIGHTS = 34_848 + 614_400 + 884_736 + 1_327_104 + 884_736 + 1_179_648 + 2_359_296
ALEXNET_MAPS = 96 + 256 + 384 + 384 + 256 + 512 + 512
# conv1, reduction, conv2 | 3a 3b 4a 4b 4c 4d 4e | the last convolution; batch norm has two numbers a map, no biases.
GOOGLENET_WEIGHTS = (
    9_408 + 4_096 + 110_592
    + 163_328 + 388_096 + 375_552 + 448_512 + 509_440 + 604_672 + 867_328
    + 7_667_712
)  # fmt: skip
GOOGLENET_MAPS = 64 + 64 + 192 + 368 + 640 + 624 + 648 + 664 + 704 + 1024 + 1024

# (kind of layer, its output) at 224 x 224 (paper, section 4.2.1); "conv" stands for conv, norm, ReLU.
ALEXNET = [
    ("conv", 96, 55), ("MaxPool2d", 96, 27), ("LocalResponseNorm", 96, 27), ("conv", 256, 27), ("MaxPool2d", 256, 13),
    ("LocalResponseNorm", 256, 13), ("conv", 384, 13), ("conv", 384, 13), ("conv", 256, 13), ("MaxPool2d", 256, 11),
    ("conv", 512, 11), ("conv", 512, 11),
]  # fmt: skip
GOOGLENET = [
    ("conv", 64, 112), ("MaxPool2d", 64, 56), ("LocalResponseNorm", 64, 56), ("conv", 64, 56), ("conv", 192, 56),
    ("LocalResponseNorm", 192, 56), ("MaxPool2d", 192, 28), ("_Inception", 256, 28), ("_Inception", 480, 28),
    ("MaxPool2d", 480, 14), ("_Inception", 512, 14), ("_Inception", 512, 14), ("_Inception", 512, 14),
    ("_Inception", 528, 14), ("_Inception", 832, 14), ("conv", 1024, 14),
]  # fmt: skip


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _layers(model: Localiser, side: int) -> list[tuple[str, int, int]]:
    """Kind, maps and side of the output of the stem and of each layer of the trunk, as they run."""
    seen = []

    def note(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        assert output.shape[2] == output.shape[3]
        name = "conv" if type(layer).__name__ == "Conv2dNormActivation" else type(layer).__name__
        seen.append((name, output.shape[1], output.shape[2]))

    for layer in (model.stem, *model.trunk):
        layer.register_forward_hook(note)
    with torch.no_grad():
        logits = model.eval()(torch.randn(1, 3, side, side))
    assert logits.shape == (1, model.classifier.out_features)
    return seen


def test_alexnet_layers() -> None:
    assert _layers(AlexNetGAP(1000), 224) == ALEXNET


@pytest.mark.parametrize("norm", ["bn", "none"])
def test_alexnet_without_response_norm(norm: str) -> None:
    model = AlexNetGAP(10, norm=norm)
    assert _layers(model, 224) == [layer for layer in ALEXNET if layer[0] != "LocalResponseNorm"]
    convolutions = [model.stem, *(layer for layer in model.trunk if isinstance(layer, nn.Sequential))]
    kinds = ["Conv2d", "BatchNorm2d", "ReLU"] if norm == "bn" else ["Conv2d", "ReLU"]
    assert all([type(part).__name__ for part in layer] == kinds for layer in convolutions)


def test_alexnet_numbers() -> None:
    linear = 512 * 1000 + 1000
    assert _parameters(AlexNetGAP(1000)) == ALEXNET_WEIGHTS + ALEXNET_MAPS + linear == 7_800_168
    assert _parameters(AlexNetGAP(1000, norm="none")) == 7_800_168
    assert _parameters(AlexNetGAP(1000, norm="bn")) == ALEXNET_WEIGHTS + 2 * ALEXNET_MAPS + linear
    model = AlexNetGAP(1000)
    assert model.dropout.p == 0.5
    assert all(module.groups == 1 for module in model.modules() if isinstance(module, nn.Conv2d))
    first = model.first_convolution()
    assert first.weight.shape == (96, 3, 11, 11) and first.stride == (4, 4) and first.padding == (2, 2)


def test_response_norm_is_caffes() -> None:
    """A value x becomes x / (1 + 1e-4 / 5 * sum of squares of the five maps around) ** 0.75."""
    layer = next(module for module in AlexNetGAP(2).modules() if isinstance(module, nn.LocalResponseNorm))
    maps = torch.zeros(1, 8, 1, 1)
    maps[0, 3], maps[0, 5], maps[0, 6] = 100.0, 200.0, 300.0
    assert layer(maps)[0, 3].item() == pytest.approx(100 / (1 + 1e-4 / 5 * (100**2 + 200**2)) ** 0.75)


def test_googlenet_layers() -> None:
    assert _layers(GoogLeNetGAP(1000), 224) == GOOGLENET


def test_googlenet_numbers() -> None:
    model = GoogLeNetGAP(1000)
    assert _parameters(model) == GOOGLENET_WEIGHTS + 2 * GOOGLENET_MAPS + 1024 * 1000 + 1000 == 12_185_768
    assert model.dropout.p == 0
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.groups == 1 and module.bias is None for module in convolutions)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == len(convolutions) == 46
    assert model.first_convolution().weight.shape == (64, 3, 7, 7)


def test_smallnet_layers_and_cost() -> None:
    model = SmallGAP(20)
    convolutions = [("conv", 24, 32), ("conv", 32, 16), ("conv", 64, 16), ("conv", 64, 8), ("conv", 96, 8)]
    assert _layers(model, 64) == [*convolutions, ("conv", 128, 8)]
    weights = 648 + 6_912 + 18_432 + 36_864 + 55_296 + 110_592
    assert _parameters(model) == weights + 2 * (24 + 32 + 64 + 64 + 96 + 128) + 128 * 20 + 20 == 232_140
    products = 648 * 32**2 + (6_912 + 18_432) * 16**2 + (36_864 + 55_296 + 110_592) * 8**2 + 128 * 20
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert counter.get_total_flops() == 2 * products and 40.2e6 < 2 * products < 40.3e6


def test_one_unit_of_smallnet_sees_55_pixels() -> None:
    model = SmallGAP(2).eval()
    images = torch.randn(1, 3, 128, 128, requires_grad=True)
    model.features(images)[0, :, 8, 8].sum().backward()
    rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert 50 <= rows.max() - rows.min() + 1 <= 55  # a ReLU may shut the outermost pixels off


@pytest.mark.parametrize(("width", "maps"), [(0.5, [16, 16, 32, 32, 48, 64]), (2, [48, 64, 128, 128, 192, 256])])
def test_smallnet_width(width: float, maps: list[int]) -> None:
    assert [layer[1] for layer in _layers(SmallGAP(3, width=width), 64)] == maps


@pytest.mark.parametrize(
    ("make", "side"), [(AlexNetGAP, 63), (GoogLeNetGAP, 15), (SmallGAP, 1)], ids=["alexnet", "googlenet", "smallnet"]
)
def test_smallest_image(make: Callable[[int], Localiser], side: int) -> None:
    """The stated side gives a map; one pixel less is refused by us, and would fail in a layer."""
    model = make(2).eval()
    assert model(torch.randn(1, 3, side, side)).shape == (1, 2)
    if side > 1:
        with pytest.raises(ValueError, match=f"images of {side} x {side - 1} pixels leave no map: .* at least {side}"):
            model(torch.randn(1, 3, side, side - 1))
        model.smallest_side = 1
        with pytest.raises(RuntimeError, match="too small"):
            model(torch.randn(1, 3, side, side - 1))


@pytest.mark.parametrize("norm", ["lrn", "none", "bn"])
def test_the_initial_signal_neither_dies_nor_explodes(norm: str) -> None:
    torch.manual_seed(0)
    model = AlexNetGAP(10, norm=norm)
    features = model.features(torch.randn(4, 3, 127, 127))
    assert 0.1 < features.std() < 10
    features.std().backward()
    assert 1e-4 < model.first_convolution().weight.grad.norm() < 1e2


@pytest.mark.parametrize("pool", ["gap", "gmp"])
def test_smallnet_learns(pool: str) -> None:
    """Sixteen pictures with a bright corner, class = corner: SGD gets all right and the loss down."""
    torch.manual_seed(0)
    model = SmallGAP(4, pool=pool, width=0.5)
    images, labels = 0.3 * torch.randn(16, 3, 32, 32), torch.arange(16) % 4
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 16 * (label // 2) :, 16 * (label % 2) :][:, :12, :12] += torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1 and torch.equal(model(images).argmax(1), labels)


@pytest.mark.parametrize("make", [AlexNetGAP, GoogLeNetGAP, SmallGAP])
def test_every_parameter_has_a_gradient(make: Callable[..., Localiser]) -> None:
    """DDP stops where one has none."""
    model = make(3, conv1=HideAndSeek((5,)), dropout=0.5)
    model(torch.randn(2, 3, 67, 67), torch.arange(2), 1).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AlexNetGAP(10, norm="gn"), "norm='gn': expected one of lrn, bn, none"),
        (lambda: SmallGAP(10, width=0), "width=0: expected a number above 0"),
        (lambda: SmallGAP(10, width=float("nan")), "width=nan"),
    ],
)
def test_errors(make: Callable[[], Localiser], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
