"""The choice of the device, and the graph of a GPU pipeline, which can be defined without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nvidia.dali.backend import GetCUDADeviceCount  # type: ignore[attr-defined]

from has_dali import doctor
from has_dali.kernels import dispatch
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import EvalPlan, FileSource, Sampler, TrainPlan, device, graph, stream
from has_dali.pipelines.spec import ImageSpec


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "cuda_problems", lambda: {"cupy": None, "numba-cuda": None})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("auto", "cuda:1"),
        ("gpu", "cuda:1"),
        ("cuda", "cuda:1"),
        ("cuda:0", "cuda:0"),
        (torch.device("cuda", 0), "cuda:0"),
    ],
)
def test_choice_with_gpus(asked: str | torch.device, expected: str) -> None:
    assert device.choose_device(asked) == (torch.device(expected), "cupy: a CUDA device is here")


@pytest.mark.usefixtures("two_gpus")
def test_choices_that_do_not_fit_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.choose_device("cpu") == (torch.device("cpu"), "device='cpu' was asked for")
    with pytest.raises(RuntimeError, match=r"device='cuda:2': there are 2 CUDA devices, counted from 0"):
        device.choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"device='cuda': cupy finds a CUDA device, but torch .* does not"):
        device.choose_device("cuda")
    chosen, reason = device.choose_device("auto")
    assert chosen == torch.device("cpu") and reason.startswith("auto: cupy finds a CUDA device, but torch")


def test_without_kernels_for_the_gpu_the_doctor_and_the_loader_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch alone sees a GPU: nothing could hide on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dispatch, "cuda_problems", lambda: {"cupy": "CuPy is ill", "numba-cuda": "numba-cuda too"})
    reason = "CuPy is ill; numba-cuda too"
    assert doctor._check_backend() == f"cpu: {reason}"
    assert device.choose_device("auto") == (torch.device("cpu"), f"auto: {reason}")
    for asked in ("gpu", "cuda", "cuda:0"):
        with pytest.raises(RuntimeError, match=f"device='{asked}': {reason}; use device='auto' or 'cpu'"):
            device.choose_device(asked)


@pytest.mark.parametrize("asked", ["tpu", "meta", 3.5, None])
def test_unknown_device(asked: object) -> None:
    with pytest.raises(ValueError, match="expected 'auto', 'cpu', 'cuda', 'gpu' or 'cuda:N'"):
        device.choose_device(asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(("plan", "views"), [(TrainPlan(), None), (TrainPlan(), 2), (EvalPlan(64, 72), None)])
@pytest.mark.parametrize(("dtype", "channels_last"), [("float32", False), ("float16", True)])
def test_gpu_graph_up_to_the_driver(
    image_folder: Path,
    plan: TrainPlan | EvalPlan,
    views: int | None,
    dtype: str,
    channels_last: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole graph, real fused operator included; what is left is DALI's own wish for a driver."""
    policy = HideAndSeek() if isinstance(plan, TrainPlan) else None
    spec = ImageSpec(plan, policy, 64, (0.0,) * 3, (1.0,) * 3, None, dtype, channels_last, True, views)
    source = FileSource(sorted(image_folder.rglob("*.jpg")))
    feeder = stream.Feeder(spec, source, Sampler(len(source), 8, train=policy is not None), None)
    fused, seen = graph.hfn.resize_mirror_normalize_hide, []

    def watched(images: Any, *args: Any, **options: Any) -> Any:
        output = fused(images, *args, **options)
        seen.append((images.device, output.device))
        return output

    monkeypatch.setattr(graph.hfn, "resize_mirror_normalize_hide", watched)
    assert graph.build_decoder(spec, source, feeder, 0).device_id == 0
    pipeline = graph.build(spec, source, feeder, spec.policies(0), batch_size=8, threads=2, prefetch=2, device_id=0)
    assert pipeline.device_id == 0
    assert seen == [("gpu", "gpu")] * (views or 1)
    if _gpus() == 0:
        with pytest.raises(RuntimeError, match=r"(?i)cuda"):
            pipeline.build()
        return
    pipeline.build()
    (images,) = pipeline.run()
    form = (64, 64, 3) if channels_last else (3, 64, 64)
    assert tuple(images.shape()[0]) == (form if views is None else (views, *form))


def _gpus() -> int:
    try:
        return int(GetCUDADeviceCount())
    except RuntimeError:
        return 0
