"""``has_dali.hide`` and the DALI launcher on the real CUDA route: CuPy's stand-in runs the kernels' PTX on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "kernels"))
import cuda_support as support
from cupy_standin import make_cupy

from has_dali import HideAndSeek, dlpack, hide
from has_dali.kernels import dispatch, gpu, reference
from has_dali.launchers import CudaLauncher

POLICY = HideAndSeek((3, 0, 8), seed=5, random_offset=True)
IDS = np.array([4, -9, 2**40])


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in, installed and chosen."""
    module = make_cupy(support.load_ptxrun())
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(gpu, "_functions", {})
    monkeypatch.setattr(dispatch, "cuda_kernels", lambda backend="auto": gpu)
    return module


def device_view(array: Any) -> dlpack.TensorView:
    """What the glue makes of DALI's tensors."""
    return dlpack.TensorView(array.data.ptr, array.shape, array.values.dtype, (dlpack.CUDA, 0), None, array)


def test_hide_takes_device_arrays(cupy: Any) -> None:
    batch = np.random.default_rng(0).random((3, 3, 12, 20), dtype=np.float32)
    array = cupy.asarray(batch)
    expected = reference.hide(batch, POLICY, IDS, 2, 0.5)
    np.testing.assert_array_equal(hide(array, POLICY, IDS, 2, fill=0.5).values, expected)
    np.testing.assert_array_equal(array.values, batch)
    assert hide(array, POLICY, IDS, 2, fill=0.5, out=array) is array
    np.testing.assert_array_equal(array.values, expected)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((IDS[:2], 0), {}, "hide: sample_ids: expected shape \\(3,\\)"),
        ((IDS, 0), {"backend": "cpu"}, "hide: backend='cpu': the batch is on a CUDA device"),
        ((IDS, 0), {"layout": "NCT"}, "hide: batch: expected 3 axes"),
        ((IDS, -1), {}, "hide: epoch=-1"),
    ],
)
def test_bad_arguments_are_named(cupy: Any, arguments: tuple, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hide(cupy.asarray(np.zeros((3, 3, 12, 20), np.float32)), POLICY, *arguments, **options)


def test_the_dali_launcher_hides_in_place_with_keys_on_the_device(cupy: Any) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 3), dtype=np.uint8)
    array, keys = cupy.asarray(batch), cupy.asarray(np.array([[i, 7, 0, 2**31] for i in IDS]))
    launcher = CudaLauncher()
    launcher.hide(device_view(array), "NHWC", POLICY, device_view(keys), False, (1, 2, 3), 0)
    cupy.log.clear()
    launcher.hide(device_view(array), "NHWC", POLICY, device_view(keys), True, (1, 2, 3), 0)
    assert dict(cupy.log) == {"launch": 1}
    np.testing.assert_array_equal(array.values, reference.hide(batch, POLICY, IDS, 7, (1, 2, 3), "NHWC"))


@pytest.mark.parametrize("size", [(9, 14), None])
@pytest.mark.parametrize(("dtype", "layout"), [(np.float32, "CHW"), (np.float16, "HWC")])
def test_the_dali_launcher_resizes_ragged_images(cupy: Any, size: Any, dtype: Any, layout: str) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((11, 23), (30, 8), (5, 40))]
    arrays = [cupy.asarray(image) for image in images]
    keys = cupy.asarray(np.array([[i, 7, n % 2, 2**30] for n, i in enumerate(IDS)]))
    options = {"size": size, "antialias": True, "output_layout": layout, "mean": 3.0, "std": 2.0, "fill_value": 9.0}
    views = [device_view(array) for array in arrays]
    capsules = CudaLauncher().resize(views, POLICY, device_view(keys), True, 0, {**options, "dtype": dtype})
    expected = reference.resize_mirror_normalize_hide(
        images, POLICY, IDS, 7, mirror=[0, 1, 0], p_hide=0.25, dtype=dtype, **options
    )
    for capsule, wanted in zip(capsules, expected, strict=True):
        view = dlpack.view(capsule)
        assert view.device == (dlpack.CUDA, 0)
        on_cpu = dlpack.TensorView(view.pointer, view.shape, view.dtype, (dlpack.CPU, 0), None, capsule)
        np.testing.assert_array_equal(on_cpu.numpy(), wanted)


@pytest.mark.parametrize("size", [(9, 14), None])
def test_after_the_warm_up_the_first_batch_compiles_nothing(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, size: Any
) -> None:
    import contextlib

    import torch

    from has_dali.launchers import warm_up_resize

    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    options = {"size": size, "antialias": True, "output_layout": "CHW"}
    warm_up_resize(POLICY, 3, 0, dtype="float32", **options)
    compiled = set(gpu._functions)
    images = [cupy.asarray(np.full((h, w, 3), 9, np.uint8)) for h, w in ((64, 64), (64, 80), (32, 64))]
    keys = cupy.asarray(np.array([[i, 7, 0, 0] for i in IDS]))
    constants = {"mean": 3.0, "std": 2.0, "fill_value": None, "dtype": np.float32}
    views = [device_view(image) for image in images]
    CudaLauncher().resize(views, POLICY, device_view(keys), False, 0, {**options, **constants})
    assert compiled and set(gpu._functions) == compiled


@pytest.mark.parametrize(("side", "dtype"), [(299, "float32"), (100, "float16"), (224, "float32")])
def test_the_warm_up_of_evaluation_follows_the_alignment_of_its_images(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, side: int, dtype: str
) -> None:
    import contextlib

    import torch

    from has_dali.launchers import warm_up_resize

    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    options = {"size": None, "antialias": True, "output_layout": "CHW"}
    warm_up_resize(None, 3, 0, dtype=dtype, source=(side, side), **options)
    compiled = set(gpu._functions)
    images = [cupy.asarray(np.full((side, side, 3), 9, np.uint8)) for _ in range(3)]
    keys = cupy.asarray(np.zeros((3, 4), np.int64))
    constants = {"mean": 3.0, "std": 2.0, "fill_value": None, "dtype": np.dtype(dtype)}
    monkeypatch.setattr(gpu, "_launch", lambda _, plan: gpu._function(cupy, plan.specialisation))
    CudaLauncher().resize([device_view(i) for i in images], None, device_view(keys), False, 0, {**options, **constants})
    assert compiled and set(gpu._functions) == compiled
