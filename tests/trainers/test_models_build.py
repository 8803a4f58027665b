"""Networks by name, from all four sources, and messages for names that are none."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from has_dali import HideAndSeek
from has_dali.trainers.models import Localiser, build_classifier, build_localiser, model_names


@pytest.mark.parametrize(
    "name",
    ["cifar_resnet20", "cifar_resnet14", "smallnet", "alexnet_gap", "googlenet_gap", "resnet18", "mobilenet_v3_small"],
)
def test_classifiers_give_logits(name: str) -> None:
    model = build_classifier(name, 5)
    assert model.training and model(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_the_block_is_that_of_cifar_networks() -> None:
    assert build_classifier("cifar_resnet44", 10).layers == 65
    assert build_classifier("cifar_resnet44", 10, block="basic").layers == 44


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("alexnet_gap", {0.3}),
        ("smallnet", {0.3}),
        ("mobilenet_v2", {0.3}),
        ("alexnet", {0.3}),
        ("squeezenet1_1", {0.3}),
    ],
)
def test_drop_rate_reaches_the_network(name: str, rates: set[float]) -> None:
    model = build_classifier(name, 3, drop_rate=0.3)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == rates


def test_drop_rate_of_densenet_has_another_name() -> None:
    model = build_classifier("densenet121", 3, drop_rate=0.3)
    assert model.features.denseblock1.denselayer1.drop_rate == 0.3


def test_timm_by_name() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    model = build_classifier("timm/resnet10t", 3, drop_rate=0.25)
    assert type(model) is timm.models.ResNet and model.drop_rate == 0.25
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"model 'timm/resnet10' is unknown: did you mean .*timm/resnet10"):
        build_classifier("timm/resnet10", 3)


def test_timm_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"model 'timm/resnet10t' needs timm.*: pip install timm"):
        build_classifier("timm/resnet10t", 3)


def test_localisers_take_their_options() -> None:
    policy = HideAndSeek.preset("conv1-5")
    model = build_localiser("alexnet_gap", 4, pool="gmp", norm="bn", dropout=0.1, conv1=policy, conv1_fill=0.5)
    assert model.pool == "gmp" and model.dropout.p == 0.1
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert model.hide_conv1.policy == policy and model.hide_conv1.fill == 0.5
    assert build_localiser("alexnet_gap", 4).dropout.p == 0.5
    assert build_localiser("smallnet", 4, width=0.5).first_convolution().out_channels == 16
    trunk = build_localiser("resnet18", 4, pool="gmp", dropout=0.2, conv1=policy)
    assert isinstance(trunk, Localiser) and trunk.pool == "gmp" and trunk.dropout.p == 0.2
    assert build_localiser("googlenet_gap", 4).trunk.cam_conv[0].out_channels == 1024


def test_names() -> None:
    names = model_names()
    assert {"smallnet", "alexnet_gap", "googlenet_gap", "cifar_resnet110", "resnet50", "vit_b_16"} <= set(names)
    assert not {"fasterrcnn_resnet50_fpn", "fcn_resnet50", "r3d_18", "quantized_resnet18"} & set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("resnet5", 3), {}, "model 'resnet5' is unknown: did you mean .*resnet50"),
        (("AlexNet-GAP", 3), {}, "unknown: did you mean alexnet_gap"),
        (("smalnet", 3), {}, "unknown: did you mean smallnet"),
        (("zzzz", 3), {}, r"model 'zzzz' is unknown: .*model_names\(\) lists the names"),
        (("fcn_resnet50", 3), {}, "model 'fcn_resnet50' is unknown"),
        (("cifar_resnet21", 3), {}, "cifar_resnet21: expected a depth of 6n"),
        (("cifar_resnet20", 3), {"block": "wide"}, "block='wide'"),
        (("cifar_resnet20", 3), {"drop_rate": 0.5}, "cifar_resnet20 has no dropout"),
        (("resnet18", 3), {"drop_rate": 0.5}, "resnet18 has no dropout to set"),
        (("resnet18", 3), {"drop_rate": 2}, "drop_rate=2: expected a probability"),
        (("resnet18", 0), {}, "classes=0: expected a whole number"),
        (("resnet18", 2.5), {}, "classes=2.5: expected a whole number"),
    ],
)
def test_classifier_errors(arguments: tuple, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_classifier(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet18", {"norm": "bn"}, "norm='bn': only alexnet_gap has a choice of norms"),
        ("googlenet_gap", {"width": 2}, "width=2: only smallnet has a width"),
        ("cifar_resnet44", {}, "'cifar_resnet44' does not localise: expected alexnet_gap, googlenet_gap, smallnet"),
        ("timm/resnet18", {}, "'timm/resnet18' does not localise"),
        ("googlenetgap", {}, "unknown: did you mean googlenet_gap"),
    ],
)
def test_localiser_errors(name: str, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_localiser(name, 3, **options)


def test_importing_the_package_is_light() -> None:
    code = "import sys, has_dali.trainers.models as m; assert 'torch' not in sys.modules; print(dir(m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "build_localiser" in done.stdout, done.stderr
