"""The torch modules: train mode only, zero gradient where hidden, at home in compile, pickle and state dicts."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from has_dali import HideAndSeek, hide
from has_dali.nn import HideAndSeek1d, HideAndSeek2d

POLICY = HideAndSeek((3,), seed=-4, random_offset=True)
CASES = [(HideAndSeek2d, (4, 5, 12, 14), "NCHW"), (HideAndSeek1d, (4, 5, 40), "NCT")]
IDS = torch.arange(4)


@pytest.mark.parametrize(("module", "shape", "layout"), CASES)
def test_training_hides_and_evaluation_does_not(module: type, shape: tuple, layout: str) -> None:
    batch = torch.rand(shape)
    layer = module(POLICY, fill=0.25)
    assert torch.equal(layer(batch, IDS, 3), hide(batch, POLICY, IDS, 3, fill=0.25, layout=layout))
    assert layer.eval()(batch) is batch


@pytest.mark.parametrize(("module", "shape", "layout"), CASES)
def test_gradient_is_zero_where_hidden_and_one_elsewhere(module: type, shape: tuple, layout: str) -> None:
    batch = torch.rand(shape, requires_grad=True)
    module(POLICY, fill=-1.0)(batch, IDS, 3).sum().backward()
    hidden = hide(batch.detach(), POLICY, IDS, 3, fill=-1.0, layout=layout) == -1
    assert hidden.any() and not hidden.all()
    assert torch.equal(batch.grad, (~hidden).float())


def test_the_operator_passes_torchs_own_checks() -> None:
    batch = torch.rand(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    arguments = (batch, torch.arange(2), 1, [2, 3], 0.5, 1.0, -4, False, [0.0, 1.0, 2.0], "NCHW")
    torch.library.opcheck(torch.ops.has_dali.hide.default, arguments)
    assert torch.autograd.gradcheck(lambda x: torch.ops.has_dali.hide(x, *arguments[1:]), (batch,))


def test_torch_compile_gives_the_same_without_a_graph_break() -> None:
    layer = HideAndSeek2d(POLICY)
    batch = torch.rand(4, 5, 12, 14)
    compiled = torch.compile(lambda x, ids: layer(x * 2, ids, 1) + 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(batch, IDS), layer(batch * 2, IDS, 1) + 1)


@pytest.mark.parametrize("slicing", [lambda x: x[:, :, ::2], lambda x: x.expand(4, 5, 12, 14), lambda x: x.mT])
def test_inputs_that_are_not_dense_compile_and_differentiate(slicing: object) -> None:
    layer = HideAndSeek2d(POLICY)
    base = torch.rand(4, 1 if "expand" in str(slicing) else 5, 12, 14, requires_grad=True)
    batch = slicing(base)  # type: ignore[operator]
    plain = layer(batch, IDS, 1)
    compiled = torch.compile(lambda x: layer(x, IDS, 1), fullgraph=True, backend="aot_eager")(batch)
    assert torch.equal(plain, compiled) and plain.stride() == compiled.stride()
    plain.sum().backward()
    assert base.grad is not None


def test_without_ids_masks_come_from_torchs_generator() -> None:
    layer, batch = HideAndSeek2d(POLICY), torch.rand(4, 5, 12, 14)
    torch.manual_seed(5)
    first, second = layer(batch), layer(batch)
    torch.manual_seed(5)
    assert torch.equal(layer(batch), first)
    assert not torch.equal(first, second)


def test_running_mean_fill_follows_the_channels_and_is_saved() -> None:
    layer = HideAndSeek2d(HideAndSeek((4,), p_hide=1.0), fill="running_mean", momentum=0.5)
    batch = torch.rand(4, 3, 8, 8)
    mean = batch.mean(dim=(0, 2, 3))
    assert torch.allclose(layer(batch), mean.view(1, 3, 1, 1).expand_as(batch))
    assert torch.allclose(layer(batch + 1)[0, :, 0, 0], mean + 0.5)
    restored = HideAndSeek2d(layer.policy, fill="running_mean")
    restored.load_state_dict(layer.state_dict())
    assert torch.equal(restored.running_mean, layer.running_mean)


def test_modules_are_copied_and_pickled() -> None:
    layer = HideAndSeek2d(POLICY, fill=0.5)
    batch = torch.rand(4, 5, 12, 14)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(batch, IDS, 1), layer(batch, IDS, 1))
    assert "HideAndSeek(patch_sizes=(3,)" in repr(layer)


def test_half_precision_and_channels_last() -> None:
    batch = torch.rand(4, 5, 12, 14).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    result = HideAndSeek2d(POLICY)(batch, IDS, 1)
    assert result.dtype == torch.bfloat16 and result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: HideAndSeek2d("conv1-5"), TypeError, "HideAndSeek2d: policy.*str"),
        (lambda: HideAndSeek2d(POLICY, fill="mean"), ValueError, "fill='mean'.*running_mean"),
        (lambda: HideAndSeek2d(POLICY, momentum=0), ValueError, "momentum=0"),
        (lambda: HideAndSeek2d(POLICY)(torch.rand(3, 8, 8)), ValueError, r"4 dimensions.*\(3, 8, 8\)"),
    ],
)
def test_errors_name_the_argument(make: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()  # type: ignore[operator]


def test_ranks_with_one_seed_draw_other_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    module, masks = HideAndSeek2d(HideAndSeek(patch_sizes=(2,), p_hide=0.5)), []
    for rank in ("0", "1", "0"):
        monkeypatch.setenv("RANK", rank)
        torch.manual_seed(3)
        masks.append(module(torch.ones(4, 1, 16, 16)))
    assert torch.equal(masks[0], masks[2]) and not torch.equal(masks[0], masks[1])
