"""Trunks of torchvision's networks: their own features, nothing unused, and clear errors where there is none."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from has_dali import HideAndSeek
from has_dali.trainers.models.heads import TrunkLocaliser
from has_dali.trainers.models.trunk import split_trunk, torchvision_model

# (network, the layer whose input is what the trunk gives, maps, side at 224, layers of the stem)
FAMILIES = [
    ("resnet18", "avgpool", 512, 7, ["Conv2d", "BatchNorm2d", "ReLU"]),
    ("alexnet", "avgpool", 256, 6, ["Conv2d", "ReLU"]),
    ("squeezenet1_1", "classifier.0", 512, 13, ["Conv2d", "ReLU"]),
    ("mobilenet_v3_small", "avgpool", 576, 7, ["Conv2d", "BatchNorm2d", "Hardswish"]),
    ("efficientnet_b0", "avgpool", 1280, 7, ["Conv2d", "BatchNorm2d", "SiLU"]),
    ("convnext_tiny", "avgpool", 768, 7, ["Conv2d", "LayerNorm2d"]),
    ("regnet_x_400mf", "avgpool", 400, 7, ["Conv2d", "BatchNorm2d", "ReLU"]),
    ("googlenet", "avgpool", 1024, 7, ["Conv2d", "BatchNorm2d"]),  # its ReLU is a function
]


@pytest.mark.parametrize(("name", "pool", "maps", "side", "stem"), FAMILIES)
def test_the_trunk_gives_what_the_network_itself_pools(
    name: str, pool: str, maps: int, side: int, stem: list[str]
) -> None:
    torch.manual_seed(0)
    model = torchvision_model(name)
    first, rest, channels = split_trunk(model, name)
    pooled: list[torch.Tensor] = []
    model.get_submodule(pool).register_forward_pre_hook(lambda _layer, inputs: pooled.append(inputs[0].clone()))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for part in (model, first, rest):
            part.eval()
        model(images)
        activations = first(images)
        torch.testing.assert_close(rest(activations), pooled[0])
    assert channels == maps and pooled[0].shape == (1, maps, side, side)
    layers = [type(layer).__name__ for layer in first.modules() if not list(layer.children())]
    assert layers == stem
    if name not in ("convnext_tiny", "mobilenet_v3_small", "efficientnet_b0"):
        assert activations.min() == 0  # a ReLU was the last


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "mnasnet0_5"])
def test_networks_that_pool_without_a_layer(name: str) -> None:
    """The mean of the trunk's maps, put through the network's own classifier, gives the network's logits."""
    torch.manual_seed(0)
    model = torchvision_model(name)
    first, rest, channels = split_trunk(model, name)
    classifier = model.fc if hasattr(model, "fc") else model.classifier
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        for part in (model, first, rest):
            part.eval()
        features = rest(first(images))
        torch.testing.assert_close(classifier(features.mean(dim=(2, 3))), model(images), rtol=1e-4, atol=1e-5)
    assert features.shape == (1, channels, 5, 5)
    if name == "densenet121":
        assert features.min() == 0  # its last ReLU is a function between the layers and the pooling


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small", "squeezenet1_1"])
def test_every_parameter_is_used(name: str) -> None:
    model = TrunkLocaliser(name, 3, conv1=HideAndSeek((3,)))
    model(torch.randn(2, 3, 64, 64), torch.arange(2), 1).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_parameters_of_resnet18() -> None:
    """Those of torchvision's network with its Linear layer for three classes."""
    expected = 11_689_512 - (512 * 1000 + 1000) + 512 * 3 + 3
    assert sum(parameter.numel() for parameter in TrunkLocaliser("resnet18", 3).parameters()) == expected


def test_modes_reach_the_layers() -> None:
    """Stochastic depth and batch norm follow ``train`` and ``eval`` after the cut."""
    torch.manual_seed(0)
    model, images = TrunkLocaliser("efficientnet_b0", 3), torch.randn(2, 3, 64, 64)
    assert model.training and all(module.training for module in model.modules())
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        before = model.stem(images)
        model.train()(images)
        assert not torch.equal(model(images), model(images))
        assert not torch.equal(model.eval().stem(images), before)  # batch norm learned from the passes in between


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_transformers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'.*for class maps take a convolutional network, such as resnet18"):
        TrunkLocaliser(name, 3)


class _Late(nn.Module):
    """Looks at the image again after its first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc((self.one(images) + self.two(images)).mean(dim=(2, 3)))


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.one(images)
        return maps.mean(dim=(2, 3)) if maps.sum() > 0 else maps.amax(dim=(2, 3))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_Late(), "'mine' uses the image again after its first convolution"),
        (_Branching(), "'mine': torch.fx cannot record its forward pass"),
        (nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.Flatten(2)), "'mine' has no convolutional trunk"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2)), "'mine' has no convolutional trunk"),
    ],
)
def test_networks_that_cannot_be_cut(model: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_trunk(model, "mine")


def test_auxiliary_classifiers_are_left_out() -> None:
    for name in ("googlenet", "inception_v3"):
        model = torchvision_model(name, num_classes=4)
        assert not any("aux" in key.lower() for key in model.state_dict())
        side = 96
        assert model(torch.randn(2, 3, side, side)).shape == (2, 4)  # in training, one tensor
    assert isinstance(torchvision_model("googlenet"), torchvision.models.GoogLeNet)
