"""The choice of the device, and the graph of a GPU pipeline, which can be defined without a GPU."""

from __future__ import annotations

import pytest
import torch
from nvidia.dali import fn

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import EvalPlan, TrainPlan, device, graph


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(device, "FUSED_DEVICES", ("cpu", "cuda"))


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("asked", "expected", "reason"),
    [
        ("auto", "cuda:1", "auto: the current CUDA device"),
        ("gpu", "cuda:1", "as asked"),
        ("cuda", "cuda:1", "as asked"),
        ("cuda:3", "cuda:3", "as asked"),
        (torch.device("cuda", 2), "cuda:2", "as asked"),
        ("cpu", "cpu", "as asked"),
    ],
)
def test_choice_with_a_gpu(asked: str | torch.device, expected: str, reason: str) -> None:
    assert device.choose_device(asked) == (torch.device(expected), reason)


@pytest.mark.usefixtures("one_gpu")
def test_no_gpu_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "FUSED_DEVICES", ("cpu",))
    assert device.choose_device("auto")[0] == torch.device("cpu")
    with pytest.raises(RuntimeError, match="device='cuda': the fused operator of this version runs on the CPU only"):
        device.choose_device("cuda")


def test_choice_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose_device("auto") == (torch.device("cpu"), "auto: no CUDA device found")
    with pytest.raises(RuntimeError, match="device='cuda:0': no CUDA device found; use device='auto' or 'cpu'"):
        device.choose_device("cuda:0")


@pytest.mark.parametrize("asked", ["tpu", "meta", 3.5, None])
def test_unknown_device(asked: object) -> None:
    with pytest.raises(ValueError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        device.choose_device(asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", [TrainPlan(), EvalPlan()])
def test_gpu_graph_can_be_defined(monkeypatch: pytest.MonkeyPatch, plan: TrainPlan | EvalPlan) -> None:
    """Decoding is mixed and the images reach the fused operator on the GPU; a stock operator stands for it."""
    seen = []

    def fused(images: object, policy: object, **options: object) -> object:
        seen.append((images.device, policy, options.get("sample_ids"), options["size"]))  # type: ignore[attr-defined]
        return fn.crop_mirror_normalize(images)

    monkeypatch.setattr(graph.hfn, "resize_mirror_normalize_hide", fused)
    policy = HideAndSeek() if isinstance(plan, TrainPlan) else None
    spec = graph.GraphSpec(plan, policy, 64, (0.0,) * 3, (1.0,) * 3, None, "float32", False, True)
    pipeline = graph.build(spec, lambda: (), batch_size=8, threads=2, prefetch=2, device_id=0)
    assert pipeline.device_id == 0
    ((where, given, ids, size),) = seen
    assert where == "gpu" and given is policy
    assert (ids is None, size) == ((False, (64, 64)) if policy else (True, None))
