"""``kernels/gpu.py`` end to end on a stand-in for CuPy: results, streams, devices, caches, and what a call costs."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import cuda_support as support
from cupy_standin import make_cupy

from has_dali.kernels import contract, gpu, reference
from has_dali.kernels.policy import HideAndSeek

POLICY = HideAndSeek(patch_sizes=(3, 0, 8), seed=5)
IDS = np.array([4, -9, 2**40])


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in, installed, with empty caches."""
    module = make_cupy(support.load_ptxrun())
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(gpu, "_functions", {})
    monkeypatch.setattr(gpu, "_fills", type(gpu._fills)())
    return module


@pytest.fixture
def batch():
    """Three float32 images."""
    return np.random.default_rng(0).standard_normal((3, 3, 12, 20)).astype(np.float32)


@pytest.fixture
def images():
    """Three ragged images."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((11, 23), (30, 8), (5, 40))]


def test_hide_out_of_place(cupy, batch):
    """The result equals the reference; the batch is untouched."""
    array = cupy.asarray(batch)
    result = gpu.hide(array, POLICY, IDS, 2, fill=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(result.values, reference.hide(batch, POLICY, IDS, 2, (1.0, 2.0, 3.0)))
    np.testing.assert_array_equal(array.values, batch)


def test_hide_in_place_costs_one_launch(cupy, batch):
    """No allocation, upload or wait; the launch is on the stream that was given."""
    array = cupy.asarray(batch)
    gpu.warm_up_hide(POLICY, batch.shape, in_place=True)
    cupy.log.clear()
    assert gpu.hide(array, POLICY, IDS, 2, out=array, stream=77) is array
    assert dict(cupy.log) == {"launch": 1}
    assert cupy.launched_on == [77]
    np.testing.assert_array_equal(array.values, reference.hide(batch, POLICY, IDS, 2))


def test_keys_on_the_device(cupy, batch):
    """Ids, epochs and thresholds as device arrays: the same result, still one launch and nothing else."""
    array, out = cupy.asarray(batch), cupy.asarray(batch)
    epochs, limits = np.array([0, 1, 2]), contract.thresholds_u64([0.1, 0.5, 0.9], 3)
    on_device = [cupy.asarray(values) for values in (IDS, epochs, limits)]
    gpu.warm_up_hide(POLICY, batch.shape, keys_on_device=True)
    cupy.log.clear()
    gpu.hide(array, POLICY, on_device[0], on_device[1], thresholds=on_device[2], out=out)
    assert dict(cupy.log) == {"launch": 1}
    expected = reference.hide(batch, POLICY, IDS, epochs, p_hide=[0.1, 0.5, 0.9])
    np.testing.assert_array_equal(out.values, expected)


def test_keys_side_by_side_on_the_device(cupy, batch):
    """The columns of (N, 4) keys, as a DALI pipeline has them, are read where they lie; still one launch."""
    array = cupy.asarray(batch)
    packed = cupy.asarray(np.array([[4, 7, 0, 2**30], [-9, 8, 1, 2**31], [2**40, 9, 0, 2**32]]))
    columns = []
    for word in range(4):
        interface = {**packed.__cuda_array_interface__, "shape": (3,), "strides": packed.values.strides[:1]}
        interface["data"] = (packed.data.ptr + 8 * word, False)
        columns.append(types.SimpleNamespace(__cuda_array_interface__=interface))
    gpu.warm_up_hide(POLICY, batch.shape, keys_on_device=True, in_place=True)
    cupy.log.clear()
    gpu.hide(array, POLICY, columns[0], columns[1], thresholds=columns[3], out=array)
    assert dict(cupy.log) == {"launch": 1}
    expected = reference.hide(batch, POLICY, IDS, [7, 8, 9], p_hide=[0.25, 0.5, 1.0])
    np.testing.assert_array_equal(array.values, expected)


def test_channels_last_strides(cupy, batch):
    """An NCHW batch with channels-last strides is hidden as it lies, and the result lies the same way."""
    dense = cupy.asarray(np.ascontiguousarray(batch.transpose(0, 2, 3, 1)))
    result = gpu.hide(dense.transpose((0, 3, 1, 2)), POLICY, IDS, 0)
    np.testing.assert_array_equal(result.values, reference.hide(batch, POLICY, IDS, 0))
    assert result.values.strides == dense.values.transpose(0, 3, 1, 2).strides


def test_long_fill_is_uploaded_once(cupy):
    """More fills than arguments hold go to the device the first time only."""
    values = np.zeros((2, 20, 5, 5), np.float16)
    array = cupy.asarray(values)
    for _ in range(3):
        result = gpu.hide(array, POLICY, IDS[:2], 0, fill=range(20))
    assert cupy.log["synchronize"] == 1
    np.testing.assert_array_equal(result.values, reference.hide(values, POLICY, IDS[:2], 0, range(20)))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_resize(cupy, images, layout, dtype):
    """Ragged inputs, one dense output, mirrored on request."""
    mirror = np.array([True, False, True])
    keywords = {"size": (8, 16), "mirror": mirror, "dtype": dtype, "output_layout": layout}
    result = gpu.resize_mirror_normalize_hide([cupy.asarray(i) for i in images], POLICY, IDS, 1, **keywords)
    expected = reference.resize_mirror_normalize_hide(images, POLICY, IDS, 1, **keywords)
    np.testing.assert_array_equal(result.values, np.stack(expected))


def test_resize_costs_one_launch(cupy, images):
    """With an output brought along: one launch on the given stream and nothing else."""
    on_device, out = [cupy.asarray(i) for i in images], cupy.empty((3, 3, 8, 16), np.float32)
    gpu.warm_up_resize(POLICY, 3, size=(8, 16))
    cupy.log.clear()
    gpu.resize_mirror_normalize_hide(on_device, POLICY, IDS, 1, size=(8, 16), out=out, stream=5)
    assert dict(cupy.log) == {"launch": 1}
    assert cupy.launched_on == [5]


def test_uniform_batch_with_keys_on_the_device(cupy):
    """The form that DALI hands over: one dense batch, all keys on the device, no table."""
    values = np.random.default_rng(2).integers(0, 256, (3, 9, 14, 3), np.uint8)
    keys = [cupy.asarray(np.asarray(v, np.int64)) for v in (IDS, [1, 1, 1], [0, 1, 1])]
    gpu.warm_up_resize(POLICY, 3, size=None, ragged=False, keys_on_device=True)
    out = gpu.resize_mirror_normalize_hide(cupy.asarray(values), POLICY, keys[0], keys[1], size=None, mirror=keys[2])
    expected = reference.resize_mirror_normalize_hide(values, POLICY, IDS, 1, None, [0, 1, 1])
    np.testing.assert_array_equal(out.values, np.stack(expected))


def test_ragged_without_resampling(cupy, images):
    """``size=None`` on a list gives a list."""
    result = gpu.resize_mirror_normalize_hide([cupy.asarray(i) for i in images], POLICY, IDS, 1, size=None)
    for array, expected in zip(
        result, reference.resize_mirror_normalize_hide(images, POLICY, IDS, 1, None), strict=True
    ):
        np.testing.assert_array_equal(array.values, expected)


def test_compiled_once_for_each_device(cupy, batch):
    """The cache is per device and per specialisation."""
    for device in (0, 1, 0, 1):
        cupy.device = device
        gpu.hide(cupy.asarray(batch), POLICY, IDS, 0)
    assert cupy.log["compile"] == 2


def test_empty_batches(cupy):
    """Nothing to do is not an error."""
    assert gpu.hide(cupy.asarray(np.zeros((0, 3, 4, 4), np.float32)), POLICY, [], 0).shape == (0, 3, 4, 4)
    assert gpu.resize_mirror_normalize_hide([], POLICY, [], 0).shape[0] == 0
    assert cupy.log["launch"] == 0


def _wrong_device(cupy, batch):
    array = cupy.asarray(batch)
    cupy.device = 1
    gpu.hide(array, POLICY, IDS, 0)


def _mixed_devices(cupy, batch):
    array = cupy.asarray(batch)
    cupy.device = 1
    ids = cupy.asarray(IDS)
    cupy.device = 0
    gpu.hide(array, POLICY, ids, 0)


def _pixels(cupy, *shape):
    return cupy.asarray(np.zeros(shape, np.uint8))


def _reversed(cupy, batch):
    array = cupy.asarray(batch)
    array.values = array.values[::-1]
    return array


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_wrong_device, "batch: on CUDA device 0, but device 1"),
        (_mixed_devices, "sample_ids: on CUDA device 1"),
        (lambda c, b: gpu.hide(b, POLICY, IDS, 0), "batch: expected an array on a CUDA device"),
        (lambda c, b: gpu.hide(c.asarray(b.astype("f8")), POLICY, IDS, 0), "batch: dtype float64"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, IDS[:2], 0), r"sample_ids: expected shape \(3,\)"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, c.asarray(IDS[:2]), 0), "sample_ids: expected 3 values"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, c.asarray(IDS.astype("i4")), 0), "sample_ids: .*int64 or uint64"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, IDS, -1), "epoch"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, IDS, 0, layout="CHW"), "layout='CHW'"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, IDS, 0, layout="NCT"), "batch: expected 3 axes"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, IDS, 0, fill=(1, 2)), "fill"),
        (lambda c, b: gpu.hide(_reversed(c, b), POLICY, IDS, 0), "batch: expected a dense batch"),
        (lambda c, b: gpu.hide(c.asarray(b), POLICY, IDS, 0, out=c.asarray(b[:2])), "out: expected shape"),
        (lambda c, b: gpu.hide(c.asarray(b), HideAndSeek(tuple(range(600))), IDS, 0), "patch_sizes: 600 sizes"),
        (lambda c, b: gpu.resize_mirror_normalize_hide([_pixels(c, 4, 4)], POLICY, [1], 0), r"images\[0\]: .*3 axes"),
        (lambda c, b: gpu.resize_mirror_normalize_hide([_pixels(c, 4, 4, 5)], POLICY, [1], 0), "5 channels"),
        (
            lambda c, b: gpu.resize_mirror_normalize_hide(
                [_pixels(c, 4, 4, 3), _pixels(c, 4, 4, 1)], POLICY, [1, 2], 0
            ),
            r"images\[1\]: 1 channels",
        ),
        (lambda c, b: gpu.resize_mirror_normalize_hide([_pixels(c, 4, 4, 3)], POLICY, [1, 2], 0), "sample_ids"),
        (lambda c, b: gpu.resize_mirror_normalize_hide([_pixels(c, 4, 4, 3)], POLICY, [1], 0, size=(0, 3)), "size="),
        (lambda c, b: gpu.resize_mirror_normalize_hide([_pixels(c, 4, 4, 3)], POLICY, [1], 0, dtype="int8"), "dtype="),
        (
            lambda c, b: gpu.resize_mirror_normalize_hide([_pixels(c, 4, 4, 3)], POLICY, [1], 0, mirror=[1, 0]),
            "mirror: expected one flag",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(cupy, batch, call, message):
    """Each error names the argument; nothing is launched."""
    with pytest.raises((ValueError, TypeError), match=message):
        call(cupy, batch)
    assert cupy.log["launch"] == 0


def test_without_cupy(monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "cuda13" in gpu.unavailable_reason()
    with pytest.raises(gpu.CudaUnavailableError, match="cannot be imported"):
        gpu.hide(None, POLICY, IDS, 0)


def test_compiler_failure_is_explained(cupy, batch, monkeypatch):
    """NVRTC missing or failing: one error that says so."""

    def broken(**_):
        raise OSError("libnvrtc.so.13 not found")

    monkeypatch.setattr(cupy, "RawModule", broken)
    with pytest.raises(gpu.CudaUnavailableError, match="libnvrtc"):
        gpu.hide(cupy.asarray(batch), POLICY, IDS, 0)
