"""Class maps against hand-computed cases and the logits, and hiding after conv1 against the policy's own masks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from has_dali import HideAndSeek
from has_dali.trainers.models import Localiser
from has_dali.trainers.models.alexnet_gap import AlexNetGAP
from has_dali.trainers.models.googlenet_gap import GoogLeNetGAP
from has_dali.trainers.models.heads import TrunkLocaliser
from has_dali.trainers.models.small_gap import SmallGAP

POLICY = HideAndSeek.preset("conv1-11", seed=5)
IDS = torch.tensor([3, 2**40, 7])


def _head(pool: str = "gap", classes: int = 2) -> Localiser:
    """Two maps, no convolutions; class 0 weighs them (1, -2) with bias 10, class 1 (0, 3) with bias 20."""
    model = Localiser(nn.Identity(), nn.Identity(), 2, classes, pool=pool)
    with torch.no_grad():
        model.classifier.weight[:2] = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
        model.classifier.bias[:2] = torch.tensor([10.0, 20.0])
    return model


FEATURES = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 1.0]]]])


def test_logits_and_class_maps_by_hand() -> None:
    assert _head("gap").logits(FEATURES).tolist() == [[10 + 2.5 - 2 * 0.5, 20 + 3 * 0.5]]
    assert _head("gmp").logits(FEATURES).tolist() == [[10 + 4 - 2 * 1, 20 + 3 * 1]]
    for pool in ("gap", "gmp"):
        maps = _head(pool).class_maps(FEATURES, torch.tensor([[1, 0, 1]]))
        assert maps.tolist() == [[[[0, 3], [0, 3]], [[1, 0], [3, 2]], [[0, 3], [0, 3]]]]


def test_each_image_gets_its_own_classes() -> None:
    torch.manual_seed(0)
    model = _head(classes=6)
    features, classes = torch.randn(3, 2, 4, 5), torch.tensor([[5, 0], [1, 1], [2, 4]])
    maps = model.class_maps(features, classes)
    weight = model.classifier.weight
    for n in range(3):
        for m in range(2):
            expected = weight[classes[n, m], 0] * features[n, 0] + weight[classes[n, m], 1] * features[n, 1]
            torch.testing.assert_close(maps[n, m], expected)


MODELS: dict[str, Callable[..., Localiser]] = {
    "alexnet": lambda **options: AlexNetGAP(7, **options),
    "googlenet": lambda **options: GoogLeNetGAP(7, **options),
    "smallnet": lambda **options: SmallGAP(7, **options),
    "resnet18": lambda **options: TrunkLocaliser("resnet18", 7, **options),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pool", ["gap", "gmp"])
def test_logits_follow_from_the_maps(name: str, pool: str) -> None:
    """GAP: the mean of a class map is the logit without bias. GMP: the maximum of each map, with the same weights."""
    torch.manual_seed(0)
    model, images = MODELS[name](pool=pool).eval(), torch.randn(2, 3, 95, 127)
    with torch.no_grad():
        model.classifier.bias.normal_()
        features, logits = model.features(images), model(images)
        maps = model.class_maps(features, torch.arange(7).expand(2, 7))
        plain = logits - model.classifier.bias
        if pool == "gap":
            torch.testing.assert_close(maps.mean(dim=(2, 3)), plain, rtol=1e-4, atol=1e-5)
        else:
            peaks = features.flatten(2).max(dim=2).values
            torch.testing.assert_close(peaks @ model.classifier.weight.T, plain, rtol=1e-4, atol=1e-5)
            other = MODELS[name](pool="gap").eval()
            other.load_state_dict(model.state_dict())
            assert torch.equal(other.class_maps(features, torch.arange(7).expand(2, 7)), maps)


def test_class_maps_are_float32_under_autocast() -> None:
    model, images = SmallGAP(3).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model.features(images)
        maps = model.class_maps(features, torch.zeros(2, 1, dtype=torch.int64))
    assert features.dtype == torch.bfloat16 and maps.dtype == torch.float32
    expected = torch.einsum("k,nkhw->nhw", model.classifier.weight[0], features.float())
    torch.testing.assert_close(maps[:, 0], expected)


@pytest.mark.parametrize(("name", "side", "cells"), [("alexnet", 224, 55), ("smallnet", 64, 32), ("resnet18", 64, 32)])
@pytest.mark.parametrize("fill", [0.0, 0.25, "running_mean"])
def test_conv1_is_hidden_as_the_policy_says(name: str, side: int, cells: int, fill: float | str) -> None:
    torch.manual_seed(0)
    model = MODELS[name](conv1=POLICY, conv1_fill=fill)
    seen: dict[str, torch.Tensor] = {}

    def before(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen["before"] = output

    model.stem.register_forward_hook(before)
    model.hide_conv1.register_forward_hook(lambda _layer, _inputs, output: seen.update(after=output))
    images = torch.randn(3, 3, side, side)
    model(images, IDS, 4).logsumexp(1).sum().backward()
    first, hidden = seen["before"], seen["after"]
    mask = torch.from_numpy(POLICY.mask(IDS.numpy(), 4, cells, cells))[:, None]
    assert mask.shape == (3, 1, *first.shape[2:]) and mask.any() and not mask.all()
    value = first.mean(dim=(0, 2, 3)).detach().view(1, -1, 1, 1) if fill == "running_mean" else torch.tensor(fill)
    torch.testing.assert_close(hidden, torch.where(mask, value, first))
    assert first.min() >= 0  # after the ReLU
    gradient = first.grad
    assert not gradient[mask.expand_as(gradient)].any()
    assert (gradient * ~mask).flatten(1).any(dim=1).all()
    model(images, IDS, 5)
    assert not np.array_equal(POLICY.mask(IDS.numpy(), 5, cells, cells), mask[:, 0].numpy())
    if fill == 0.0:
        moved = torch.from_numpy(POLICY.mask(IDS.numpy(), 5, cells, cells))[:, None]
        assert torch.equal(seen["after"], torch.where(moved, 0.0, seen["before"]))


def test_nothing_is_hidden_in_evaluation_or_without_a_policy() -> None:
    torch.manual_seed(0)
    model, images = SmallGAP(3, conv1=HideAndSeek((6,), p_hide=1.0)), torch.randn(3, 3, 64, 64)
    plain = SmallGAP(3)
    plain.load_state_dict(model.state_dict())
    assert plain.hide_conv1 is None
    assert torch.equal(model.eval()(images, IDS, 1), plain.eval()(images))
    features = model.train().features(images, IDS, 1)
    assert torch.equal(features, features[:1, :, :, :].expand_as(features))  # all hidden: the images are the same
    assert not torch.equal(plain.train()(images, IDS, 1)[0], plain(images, IDS, 1)[1])


def test_masks_belong_to_the_sample_not_to_its_place_in_the_batch() -> None:
    """Without batch statistics, a shuffled batch gives the shuffled logits."""
    torch.manual_seed(0)
    model, images = AlexNetGAP(3, norm="lrn", dropout=0.0, conv1=POLICY), torch.randn(3, 3, 95, 95)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        torch.testing.assert_close(model(images[order], IDS[order], 4), model(images, IDS, 4)[order])


@pytest.mark.parametrize("name", MODELS)
def test_channels_last_copies_and_state_dicts_give_the_same(name: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[name](conv1=POLICY, conv1_fill="running_mean", dropout=0.0), torch.randn(2, 3, 67, 67)
    model(images, IDS[:2], 0)
    restored = MODELS[name](conv1=POLICY, conv1_fill="running_mean", dropout=0.0)
    restored.load_state_dict(model.state_dict())
    copies = [restored, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    with torch.no_grad():
        expected = model.train()(images, IDS[:2], 4)
        for other in copies:
            other = other.to(memory_format=torch.channels_last)
            result = other(images.contiguous(memory_format=torch.channels_last), IDS[:2], 4)
            torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)
    assert isinstance(model.first_convolution(), nn.Conv2d) and model.first_convolution().in_channels == 3


@pytest.mark.parametrize("name", ["smallnet", "resnet18"])
def test_torch_compile(name: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[name](conv1=POLICY), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    for epoch in (0, 1, 5):  # an epoch must not compile it anew each time
        torch.testing.assert_close(compiled(images, IDS[:2], epoch), model(images, IDS[:2], epoch))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SmallGAP(2, pool="avg"), ValueError, "pool='avg': expected 'gap'.*'gmp'"),
        (lambda: SmallGAP(0), ValueError, "classes=0: expected at least 1"),
        (lambda: SmallGAP(2, dropout=1.5), ValueError, "dropout=1.5: expected a probability"),
        (lambda: SmallGAP(2, conv1="conv1-5"), TypeError, "conv1: expected a HideAndSeek or None, got str"),
        (lambda: SmallGAP(2, conv1_fill="mean"), ValueError, "conv1_fill='mean': expected a number or 'running_mean'"),
        (lambda: SmallGAP(2)(torch.rand(3, 64, 64)), ValueError, r"images: expected \(N, 3, H, W\), got \(3, 64, 64\)"),
        (lambda: SmallGAP(2)(torch.rand(1, 1, 64, 64)), ValueError, r"got \(1, 1, 64, 64\)"),
        (lambda: AlexNetGAP(2)(torch.rand(1, 3, 32, 32)), ValueError, "32 x 32 pixels leave no map.*smallnet"),
        (lambda: _head().class_maps(FEATURES, torch.tensor([0])), ValueError, r"shape \(1, M\).*got torch.int64"),
        (lambda: _head().class_maps(FEATURES, torch.zeros(2, 1).long()), ValueError, r"of shape \(2, 1\)"),
        (lambda: _head().class_maps(FEATURES, torch.zeros(1, 1)), ValueError, "expected integers.*torch.float32"),
        (lambda: _head().class_maps(FEATURES, torch.tensor([[2]])), ValueError, "expected 0 to 1, got .* 2 to 2"),
        (lambda: _head().class_maps(FEATURES, torch.tensor([[-1]])), ValueError, "expected 0 to 1, got values from -1"),
    ],
)
def test_errors(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
