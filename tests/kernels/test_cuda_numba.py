"""The numba-cuda kernels: under CUDA's simulator, in a process of their own, and as compiled PTX."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import numba
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import cuda_support as support

from has_dali.kernels import contract, reference
from has_dali.kernels.policy import HideAndSeek

u8, i8 = numba.uint64, numba.int64

SCRIPT = """
import numpy as np
from numba import cuda
from has_dali.kernels import numba_cuda, reference
from has_dali.kernels.policy import HideAndSeek

rng = np.random.default_rng(0)
POLICIES = [
    HideAndSeek(patch_sizes=(3, 0, 8), seed=-5),
    HideAndSeek(patch_sizes=(5, 2**31 - 1), p_hide=0.3, random_offset=True, seed=2**63),
    HideAndSeek(patch_sizes=(1,), p_apply=0.5),
    None,
]
IDS = np.array([3, -4])
for policy in POLICIES:
    for dtype, layout, shape in (
        ("uint8", "NCHW", (2, 3, 9, 17)),
        ("float16", "NHWC", (2, 5, 7, 3)),
        ("float32", "NCT", (2, 4, 70)),
    ):
        batch = (rng.random(shape) * 255).astype(dtype)
        fill = tuple(range(shape[layout.index("C")]))
        expected = batch if policy is None else reference.hide(batch, policy, IDS, 7, fill, layout)
        array = cuda.to_device(batch)
        result = numba_cuda.hide(array, policy, IDS, 7, fill=fill, layout=layout).copy_to_host()
        np.testing.assert_array_equal(result, expected)
        numba_cuda.hide(array, policy, IDS, 7, fill=fill, layout=layout, out=array)
        np.testing.assert_array_equal(array.copy_to_host(), expected)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((7, 5), (4, 9))]
    for size, antialias, layout, dtype in (
        ((4, 3), True, "CHW", "float32"), ((5, 11), False, "HWC", "float32"), (None, True, "CHW", "float16")
    ):
        keywords = dict(size=size, mirror=np.array([1, 0]), antialias=antialias, output_layout=layout, dtype=dtype)
        expected = reference.resize_mirror_normalize_hide(images, policy, IDS, 7, **keywords)
        on_device = [cuda.to_device(image) for image in images]
        results = numba_cuda.resize_mirror_normalize_hide(on_device, policy, IDS, 7, **keywords)
        results = [r.copy_to_host() for r in results] if size is None else list(results.copy_to_host())
        for result, wanted in zip(results, expected):
            np.testing.assert_array_equal(result == 0, wanted == 0)  # fill is exactly 0
            np.testing.assert_allclose(result.astype("f4"), wanted.astype("f4"), rtol=2e-3, atol=2e-6)
            if dtype == "float32":  # the simulator's fma rounds twice, so 2 ulp of the largest term
                np.testing.assert_allclose(result, wanted, rtol=3e-6, atol=2e-6)
try:
    numba_cuda.hide(cuda.to_device(np.zeros((1, 1, 2, 2))), None, [1], 0)
except TypeError as error:
    assert "batch: dtype float64" in str(error)
else:
    raise AssertionError("float64 was accepted")


def image(*shape, dtype="u1"):
    return cuda.to_device(np.zeros(shape, dtype))


def resize(images, **options):
    return numba_cuda.resize_mirror_normalize_hide(images, POLICIES[0], IDS[: len(images)], 0, **options)


for call, words in (
    (lambda: resize([image(4, 4, 3)], size=(0, 4)), "size=(0, 4)"),
    (lambda: resize([image(4, 4, 5)]), "images[0]: expected 1 to 4 channels"),
    (lambda: resize([image(4, 4)]), "images[0]: expected uint8 with 3 axes"),
    (lambda: resize([image(4, 4, 3, dtype="f4")]), "images[0]: expected uint8"),
    (lambda: resize([image(4, 4, 3), image(4, 4, 1)]), "images[1]: 1 channels"),
    (lambda: resize([image(4, 4, 3)], size=(8, 8), out=image(1, 3, 4, 4, dtype="f4")), "out: expected float32"),
    (lambda: resize([image(4, 4, 3)], size=(4, 4), out=image(1, 3, 4, 4)), "out: expected float32"),
    (lambda: resize([image(4, 4, 3)], mirror=[1, 0]), "mirror: expected one flag"),
    (lambda: numba_cuda.hide(image(1, 1, 2, 2, dtype="i2"), None, [1], 0, dtype="bfloat16"), "batch: numba-cuda"),
):
    try:
        call()
    except (TypeError, ValueError) as error:
        assert words in str(error), (words, error)
    else:
        raise AssertionError(f"accepted: {words}")
"""


def test_simulator():
    """Masks and fills equal the reference bit for bit, values within rounding."""
    pytest.importorskip("numba_cuda")
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def compile_for_cuda(monkeypatch):
    """Numba's PTX of a kernel for sm_90. Device functions ask the driver for the architecture, so one is named."""
    pytest.importorskip("numba_cuda")
    from numba import cuda

    dispatcher = pytest.importorskip("numba.cuda.dispatcher")
    if not hasattr(dispatcher, "get_current_device"):
        pytest.skip("this numba-cuda finds the architecture in another way")
    device = types.SimpleNamespace(compute_capability=(9, 0), id=0)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    return lambda kernel, signature: cuda.compile_ptx(kernel.py_func, signature, cc=(9, 0))[0]


def _explode(array):
    """An array as Numba passes it: two owners, element count, element size, address, shape, strides."""
    return [
        None,
        None,
        np.int64(array.size),
        np.int64(array.itemsize),
        array,
        *map(np.int64, array.shape + array.strides),
    ]


def _run(ptx, blocks, *arguments):
    ptxrun = support.load_ptxrun()
    name = next(iter(ptxrun.Program(ptx).mod.entries))
    flat = [v for a in arguments for v in (_explode(a) if isinstance(a, np.ndarray) else [np.uint8(a)])]
    ptxrun.launch(ptx, name, (blocks,), (64,), flat, check_races=True, schedule="warp", poison=0x0102030405060708)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("interleaved", [False, True])
def test_hide_ptx(compile_for_cuda, dtype, interleaved):
    """The compiled kernel, executed: bit-equal."""
    from has_dali.kernels import numba_cuda as own

    kind = numba.from_dtype(np.dtype(dtype))
    signature = [kind[:, :, :, ::1]] * 2 + [u8[:, ::1], u8[::1], i8[::1], kind[::1], numba.boolean, numba.boolean]
    ptx = compile_for_cuda(own._hide_kernel, tuple(signature))
    shape, layout = ((2, 18, 70, 3), "NHWC") if interleaved else ((2, 3, 18, 70), "NCHW")
    batch = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    target = np.zeros_like(batch)
    policy, ids, fill = HideAndSeek((3, 8, 0), random_offset=True, seed=-2), np.array([5, -1]), (1.0, 2.0, 3.0)
    keys = own._keys(policy, 2, ids, 7, None, None, None)
    fills = np.array(fill, dtype)
    _run(ptx, own._blocks(2, 18, 70), batch, target, keys, *own._policy_arrays(policy), fills, interleaved, False)
    np.testing.assert_array_equal(target, reference.hide(batch, policy, ids, 7, fill, layout))


@pytest.mark.parametrize(("size", "antialias"), [((6, 5), True), ((7, 20), False), ((9, 14), True)])
def test_resize_ptx(compile_for_cuda, size, antialias):
    """The compiled kernel, executed: bit-equal, since its arithmetic is the reference's."""
    from has_dali.kernels import numba_cuda as own

    f4 = numba.float32
    signature = (numba.uint8[:, :, :, ::1], f4[:, :, :, ::1], u8[:, ::1], u8[::1], i8[::1], f4[:, ::1])
    ptx = compile_for_cuda(own._resize_kernel, (*signature, numba.boolean, numba.boolean, numba.boolean))
    images = np.random.default_rng(1).integers(0, 256, (2, 11, 17, 3), np.uint8)
    policy, ids, mirror = HideAndSeek((3, 0), seed=4), np.array([5, -1]), np.array([1, 0])
    target = np.zeros((2, 3, *size), np.float32)
    keys = own._keys(policy, 2, ids, 7, None, None, mirror)
    constants = np.stack(contract.normalization(contract.IMAGENET_MEAN, contract.IMAGENET_STD, None, 3))
    _run(
        ptx, own._blocks(2, *size), images, target, keys, *own._policy_arrays(policy), constants, False, True, antialias
    )  # fmt: skip
    expected = reference.resize_mirror_normalize_hide(images, policy, ids, 7, size, mirror, antialias=antialias)
    np.testing.assert_array_equal(target, np.stack(expected))
