"""What only a GPU can show (``pytest -m gpu tests/gpu``, ``make gpu-check``): results, stream order, speed.

Skipped where CuPy finds no device. With HAS_DALI_GPU_REPORT=FILE the figures are written there as JSON: kernel time and
the share of the copy bandwidth that was measured in the same run, no buffer being warm in L2.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from has_dali.kernels import contract, gpu, reference
from has_dali.kernels.policy import HideAndSeek

pytestmark = pytest.mark.gpu

POLICY = HideAndSeek.preset("wsol-mixed", seed=3)
SMALL = HideAndSeek(patch_sizes=(3, 0, 8), seed=5, random_offset=True)
BATCH, SIDE, CHANNELS = 256, 224, 3
REPEATS = 21
L2_BYTES = 256 * 2**20  # more than any L2; buffers are rotated over at least as much
DELAY_CYCLES = 50_000_000  # tens of milliseconds: long enough that a missing dependency shows


@pytest.fixture(scope="module")
def cupy():
    """CuPy with a device, or a skip that says why not."""
    reason = gpu.unavailable_reason()
    if reason is not None:
        pytest.skip(reason)
    import cupy

    return cupy


@pytest.fixture(scope="module")
def report(cupy):
    """Figures by name; written when the module is done."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    figures = {
        "device": properties["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "nvrtc": list(cupy.cuda.nvrtc.getVersion()),
        "cupy": cupy.__version__,
        "batch": BATCH,
        "policy": POLICY.to_dict(),
        "kernels": [],
    }
    yield figures
    if path := os.environ.get("HAS_DALI_GPU_REPORT"):
        Path(path).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


# ---- correctness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("NCHW", (5, 3, 224, 224)),
        ("NHWC", (5, 225, 223, 3)),
        ("NCHW", (3, 130, 7, 7)),
        ("NHWC", (2, 9, 13, 20)),
        ("NCT", (3, 4, 5001)),
        ("NCHW", (1, 1, 1, 1)),
    ],
)
def test_hide_equals_reference(cupy, layout, shape, dtype, in_place):
    """Every bit, for keys on the host and on the device."""
    batch = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    ids, fill = np.arange(shape[0]) * 2**33 - 5, tuple(range(shape[layout.index("C")]))
    expected = reference.hide(batch, SMALL, ids, 7, fill, layout)
    epochs = np.full(shape[0], 7)
    for keys in ((ids, 7), (cupy.asarray(ids), cupy.asarray(epochs))):
        array = cupy.asarray(batch)
        result = gpu.hide(array, SMALL, *keys, fill=fill, layout=layout, out=array if in_place else None)
        cupy.cuda.Device().synchronize()
        np.testing.assert_array_equal(cupy.asnumpy(result), expected)


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("size", "antialias"), [((224, 224), True), ((224, 224), False), ((33, 301), True), (None, True)]
)
def test_resize_equals_reference(cupy, size, antialias, dtype, layout):
    """Every bit of ragged images, shrunk, enlarged and as they are."""
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((300, 411), (64, 40), (1, 7), (900, 35))]
    ids, keywords = np.arange(4) - 2, {"size": size, "antialias": antialias, "output_layout": layout}
    mirror = np.array([0, 1, 1, 0])
    stored = "float32" if dtype == "bfloat16" else dtype
    expected = reference.resize_mirror_normalize_hide(images, SMALL, ids, 1, mirror=mirror, dtype=stored, **keywords)
    on_device = [cupy.asarray(image) for image in images]
    results = gpu.resize_mirror_normalize_hide(on_device, SMALL, ids, 1, mirror=mirror, dtype=dtype, **keywords)
    cupy.cuda.Device().synchronize()
    for result, wanted in zip(results, expected, strict=True):
        if dtype == "bfloat16":
            from has_dali.kernels.device_arrays import bfloat16_bits

            wanted = bfloat16_bits(wanted)
        np.testing.assert_array_equal(cupy.asnumpy(result), wanted)


def test_numba_equals_reference(cupy):
    """The other route, where numba-cuda works."""
    numba_cuda = pytest.importorskip("has_dali.kernels.numba_cuda")
    if reason := numba_cuda.unavailable_reason():
        pytest.skip(reason)
    batch = np.random.default_rng(0).random((4, 3, 65, 70)).astype(np.float32)
    array = cupy.asarray(batch)
    numba_cuda.hide(array, SMALL, np.arange(4), 7, out=array)
    cupy.cuda.Device().synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(array), reference.hide(batch, SMALL, np.arange(4), 7))


def test_beyond_2_to_the_32_elements(cupy):
    """A batch of more than 2^32 bytes: its last image is right."""
    count = 2**32 // (CHANNELS * SIDE * SIDE) + 2
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < 1.1 * count * CHANNELS * SIDE * SIDE:
        pytest.skip(f"needs 4.3 GB of device memory, {free / 1e9:.1f} GB are free")
    batch = cupy.full((count, CHANNELS, SIDE, SIDE), 9, np.uint8)
    gpu.hide(batch, SMALL, cupy.arange(count, dtype=np.int64), 0, fill=5, out=batch)
    for n in (0, count // 2, count - 1):
        expected = np.where(SMALL.mask([n], 0, SIDE, SIDE)[0], 5, 9)
        np.testing.assert_array_equal(cupy.asnumpy(batch[n]), np.broadcast_to(expected, (CHANNELS, SIDE, SIDE)))
    del batch
    cupy.get_default_memory_pool().free_all_blocks()


# ---- stream order ------------------------------------------------------------------------------------------


def _delay(cupy):
    source = 'extern "C" __global__ void delay(long long n) { long long t = clock64(); while (clock64() - t < n); }'
    return cupy.RawKernel(source, "delay")


def test_waits_for_what_the_stream_does_before(cupy):
    """The batch arrives late, behind a slow kernel on the same stream: the launch comes after it, the host goes on."""
    delay, stream = _delay(cupy), cupy.cuda.Stream(non_blocking=True)
    batch = np.random.default_rng(0).random((64, 3, 96, 96)).astype(np.float32)
    late, array = cupy.asarray(batch), cupy.zeros(batch.shape, np.float32)
    gpu.hide(array, SMALL, np.arange(64), 0, out=array)  # compiled before the clock matters
    array.fill(0)
    cupy.cuda.Device().synchronize()
    with stream:
        delay((1,), (1,), (np.int64(DELAY_CYCLES),))
        array[...] = late
    gpu.hide(array, SMALL, np.arange(64), 0, out=array, stream=stream.ptr)
    assert not stream.done, "hide waited for the stream"
    stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(array), reference.hide(batch, SMALL, np.arange(64), 0))


def test_freed_and_reallocated_memory(cupy):
    """Prefetch 4 with a slow consumer: buffers go back to the pool and come again while work is still queued."""
    delay, stream, depth = _delay(cupy), cupy.cuda.Stream(non_blocking=True), 4
    rng = np.random.default_rng(2)
    batches = [rng.random((32, 3, 64, 64)).astype(np.float32) for _ in range(6 * depth)]
    sums = []
    with stream:
        for epoch, batch in enumerate(batches):
            array = cupy.asarray(batch)
            result = gpu.hide(array, SMALL, np.arange(32), epoch, stream=stream.ptr)
            delay((1,), (1,), (np.int64(DELAY_CYCLES // 50),))
            sums.append(result.copy())
            del array, result
            if epoch % depth == depth - 1:
                cupy.get_default_memory_pool().free_all_blocks()
    stream.synchronize()
    for epoch, (batch, result) in enumerate(zip(batches, sums, strict=True)):
        np.testing.assert_array_equal(cupy.asnumpy(result), reference.hide(batch, SMALL, np.arange(32), epoch))


def test_two_streams_at_once(cupy):
    """Launches on two streams do not share state."""
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    batch = np.random.default_rng(3).random((16, 3, 64, 64)).astype(np.float32)
    arrays = [cupy.asarray(batch) for _ in range(40)]
    cupy.cuda.Device().synchronize()
    for epoch, (array, stream) in enumerate(zip(arrays, cycle(streams), strict=False)):
        gpu.hide(array, SMALL, np.arange(16), epoch, out=array, stream=stream.ptr)
    for stream in streams:
        stream.synchronize()
    for epoch, array in enumerate(arrays):
        np.testing.assert_array_equal(cupy.asnumpy(array), reference.hide(batch, SMALL, np.arange(16), epoch))


def test_graph_capture(cupy):
    """A launch can be captured: it neither allocates nor waits when the output is given."""
    stream = cupy.cuda.Stream(non_blocking=True)
    batch = np.random.default_rng(4).random((8, 3, 64, 64)).astype(np.float32)
    source, target = cupy.asarray(batch), cupy.zeros(batch.shape, np.float32)
    gpu.hide(source, SMALL, np.arange(8), 5, out=target)
    target.fill(0)
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        gpu.hide(source, SMALL, np.arange(8), 5, out=target, stream=stream.ptr)
        graph = stream.end_capture()
        graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(target), reference.hide(batch, SMALL, np.arange(8), 5))


# ---- speed -------------------------------------------------------------------------------------------------


def _seconds(cupy, calls):
    """Median device time of one call; ``calls`` are rotated so that no buffer is still in L2."""
    for call in calls:
        call()
    times = []
    for _, call in zip(range(max(REPEATS, len(calls))), cycle(calls), strict=False):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return statistics.median(times)


def _copy_bandwidth(cupy):
    """Bytes/s of a device copy, read and write counted, on buffers that exceed L2."""
    source, target = (cupy.zeros(L2_BYTES, np.uint8) for _ in range(2))
    return 2 * L2_BYTES / _seconds(cupy, [lambda: cupy.copyto(target, source)])


def _hidden_share(ids, epoch):
    return float(POLICY.mask(ids, epoch, SIDE, SIDE).mean())


def _record(report, name, seconds, moved, bandwidth):
    row = {"kernel": name, "seconds": seconds, "images_per_s": BATCH / seconds, "bytes": moved}
    row |= {"bytes_per_s": moved / seconds, "copy_bytes_per_s": bandwidth, "share_of_copy": moved / seconds / bandwidth}
    report["kernels"].append(row)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_hide_speed(cupy, report, dtype, in_place):
    """Measured and reported, not judged: bytes are those of visible input and of output."""
    shape, ids = (BATCH, CHANNELS, SIDE, SIDE), np.arange(BATCH)
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    batches = [cupy.ones(shape, dtype) for _ in range(max(2, -(-L2_BYTES // nbytes)))]
    targets = batches if in_place else [cupy.empty_like(batch) for batch in batches]
    gpu.warm_up_hide(POLICY, shape, dtype=dtype, in_place=in_place)
    calls = [lambda a=a, b=b: gpu.hide(a, POLICY, ids, 0, out=b) for a, b in zip(batches, targets, strict=True)]
    seconds, share = _seconds(cupy, calls), _hidden_share(ids, 0)
    moved = nbytes * (share if in_place else 2 - share)
    _record(report, f"hide {dtype} {'in' if in_place else 'out of'} place", seconds, moved, _copy_bandwidth(cupy))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize(("size", "antialias"), [(None, False), ((SIDE, SIDE), False), ((SIDE, SIDE), True)])
def test_resize_speed(cupy, report, size, antialias, layout, dtype):
    """The same for the fused kernel, on 256 x 256 sources or, without resampling, on 224 x 224."""
    side, ids = 256 if size else SIDE, np.arange(BATCH)
    source_bytes, itemsize = BATCH * side * side * CHANNELS, np.dtype(dtype).itemsize
    shape = (BATCH, CHANNELS, SIDE, SIDE) if layout == "CHW" else (BATCH, SIDE, SIDE, CHANNELS)
    copies = max(2, -(-L2_BYTES // source_bytes))
    sources = [cupy.ones((BATCH, side, side, CHANNELS), np.uint8) for _ in range(copies)]
    targets = [cupy.empty(shape, dtype) for _ in range(copies)]
    calls = [
        lambda a=a, b=b: gpu.resize_mirror_normalize_hide(
            a, POLICY, ids, 0, size=size, antialias=antialias, dtype=dtype, output_layout=layout, out=b
        )
        for a, b in zip(sources, targets, strict=True)
    ]
    seconds, share = _seconds(cupy, calls), _hidden_share(ids, 0)
    moved = source_bytes * (1 - share) + BATCH * SIDE * SIDE * CHANNELS * itemsize
    kind = "no resampling" if size is None else "antialias" if antialias else "linear"
    _record(report, f"fused {kind} {dtype} {layout}", seconds, moved, _copy_bandwidth(cupy))


@pytest.mark.parametrize("operation", ["hide", "fused"])
def test_cost_of_small_patches(cupy, report, operation):
    """Time at patch size 8 over time at 56: the design asks for at most 1.25, and the report says what it is."""
    batch, ids = cupy.ones((BATCH, SIDE, SIDE, CHANNELS), np.uint8), np.arange(BATCH)
    target = cupy.empty((BATCH, CHANNELS, SIDE, SIDE), np.float16)

    def call(policy):
        if operation == "hide":
            return lambda: gpu.hide(batch, policy, ids, 0, layout="NHWC", out=batch)
        return lambda: gpu.resize_mirror_normalize_hide(batch, policy, ids, 0, size=None, dtype="float16", out=target)

    times = {size: _seconds(cupy, [call(HideAndSeek((size,)))]) for size in (56, 8)}
    report[f"{operation}_time_at_8_over_56"] = times[8] / times[56]


def test_compute_sanitizer(cupy, report, tmp_path):
    """NVIDIA's own memory and race checks over the correctness tests, where the tool is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or os.environ.get("HAS_DALI_IN_SANITIZER"):
        pytest.skip("compute-sanitizer is not installed, or this already runs in it")
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", "hide_equals and uint8", str(Path(__file__))]
    for check in ("memcheck", "racecheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", *tests]
        environment = {**os.environ, "HAS_DALI_IN_SANITIZER": "1", "HAS_DALI_GPU_REPORT": ""}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        report[f"compute_sanitizer_{check}"] = "passed"


def test_thresholds_on_the_device(cupy):
    """Per-sample probabilities that are on the device already."""
    batch = np.random.default_rng(5).random((4, 3, 50, 50)).astype(np.float32)
    p = [0.0, 0.2, 0.7, 1.0]
    limits = cupy.asarray(contract.thresholds_u64(p, 4))
    result = gpu.hide(cupy.asarray(batch), SMALL, np.arange(4), 0, thresholds=limits)
    cupy.cuda.Device().synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(result), reference.hide(batch, SMALL, np.arange(4), 0, p_hide=p))
