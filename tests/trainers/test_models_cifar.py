"""CIFAR residual networks: layers, parameters and shapes worked out by hand, in both readings of the names."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from has_dali.trainers.models.cifar_resnet import CifarResNet

# Bottleneck stages (planes p, c maps in): 17 p^2 + 12 p weights a block; where a stage starts, the 1 x 1 convolution
# takes c maps and the shortcut adds 4 p c + 8 p: c p + 9 p^2 + 4 p^2 + 4 p c + 20 p.
BOTTLENECK_STARTS = 4_928 + 24_192 + 95_488
BOTTLENECK_OTHERS = 4_544 + 17_792 + 70_400
# Basic stages: 18 p^2 + 4 p a block; 9 p p/2 + 9 p^2 + 4 p where a stage halves the map; option A adds nothing.
BASIC_STARTS = 4_672 + 13_952 + 55_552
BASIC_OTHERS = 4_672 + 18_560 + 73_984
STEM = 432 + 32


@pytest.mark.parametrize(("depth", "n"), [(44, 7), (56, 9), (110, 18)])
@pytest.mark.parametrize("classes", [10, 100])
def test_parameters_and_depth(depth: int, n: int, classes: int) -> None:
    with torch.device("meta"):
        bottleneck, basic = CifarResNet(depth, classes), CifarResNet(depth, classes, "basic")
    expected = STEM + BOTTLENECK_STARTS + (n - 1) * BOTTLENECK_OTHERS + 257 * classes
    assert sum(p.numel() for p in bottleneck.parameters()) == expected
    assert bottleneck.layers == {44: 65, 56: 83, 110: 164}[depth]
    assert sum(p.numel() for p in basic.parameters()) == STEM + BASIC_STARTS + (n - 1) * BASIC_OTHERS + 65 * classes
    assert basic.layers == depth
    for model, per_block in ((bottleneck, 3), (basic, 2)):
        path = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        assert len([name for name in path if "shortcut" not in name]) == model.layers == 3 * n * per_block + 2


def test_published_sizes() -> None:
    """He et al. (2016), Table 6: 0.27 M parameters at depth 20, 0.66 M at 44, 0.85 M at 56, 1.7 M at 110."""
    for depth, millions in ((20, 0.27), (44, 0.66), (56, 0.85), (110, 1.7)):
        count = sum(p.numel() for p in CifarResNet(depth, 10, "basic").parameters())
        assert round(count / 1e6, 2 if millions < 1 else 1) == millions


@pytest.mark.parametrize(
    ("block", "maps"),
    [
        ("bottleneck_re", [(64, 32, 32), (128, 16, 16), (256, 8, 8)]),
        ("basic", [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
    ],
)
def test_shapes(block: str, maps: list[tuple[int, ...]]) -> None:
    model = CifarResNet(20, 7, block)
    seen = []
    for part in (model.stem, *model.stages):
        part.register_forward_hook(lambda _m, _i, output: seen.append(tuple(output.shape[1:])))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert seen == [(16, 32, 32), *maps]


def test_convolutions_start_from_fan_out() -> None:
    model = CifarResNet(110, 10)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            error = 5 * expected / math.sqrt(2 * module.weight.numel())
            assert abs(module.weight.std().item() - expected) < error, name
            assert module.bias is None


def test_bottleneck_strides_in_its_3x3_convolution() -> None:
    block = CifarResNet(20, 10).stages[1][0]
    assert [layer[0].stride for layer in block.residual] == [(1, 1), (2, 2), (1, 1)]
    assert block.shortcut[0].stride == (2, 2) and len(block.shortcut) == 2  # convolution and batch norm, no ReLU


def test_option_a_shortcut_by_hand() -> None:
    """With the residual's last batch norm at zero, a block is ReLU of every second pixel, and zeros for new maps."""
    block = CifarResNet(20, 10, "basic").stages[1][0]
    nn.init.zeros_(block.residual[1][1].weight)
    maps = torch.randn(2, 16, 6, 6)
    result = block(maps)
    assert torch.equal(result[:, :16], maps[:, :, ::2, ::2].relu())
    assert result.shape == (2, 32, 3, 3) and not result[:, 16:].any()


@pytest.mark.parametrize("block", ["bottleneck_re", "basic"])
def test_channels_last_state_dict_gradients_and_compile(block: str) -> None:
    torch.manual_seed(0)
    model, images = CifarResNet(8, 5, block), torch.randn(4, 3, 16, 16)
    other = CifarResNet(8, 5, block)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    other = other.to(memory_format=torch.channels_last)
    expected = model(images)
    torch.testing.assert_close(
        other(images.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4
    )
    expected.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in model.parameters())  # what DDP asks for
    compiled = torch.compile(model.eval(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((45, 10), "cifar_resnet45: expected a depth of 6n . 2, such as 44 or 50"),
        ((2, 10), "cifar_resnet2: .* such as 8 or 14"),
        ((44, 0), "classes=0: expected at least 1"),
        ((44, 10, "bottleneck"), "block='bottleneck': expected one of bottleneck_re, basic"),
    ],
)
def test_errors(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CifarResNet(*arguments)
