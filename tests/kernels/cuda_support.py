"""What the CUDA tests share: cases, the plan of a case on host memory, and the two ways to run it without a GPU."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from has_dali.kernels import contract, gpu, reference
from has_dali.kernels.device_arrays import bfloat16_bits, fill_bits
from has_dali.kernels.launch import DeviceArray, Images, SampleKeys, plan_hide, plan_resize
from has_dali.kernels.launch_layout import Plan, Specialisation
from has_dali.kernels.policy import HideAndSeek

HERE = Path(__file__).parent
UNTOUCHED = 0xA5  # outputs start with this byte


def aligned(shape, dtype, skew=0):
    """An array at ``skew`` bytes behind a 256-byte boundary, as a slice of device memory may lie."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.full(nbytes + 256 + skew, UNTOUCHED, np.uint8)
    start = -raw.ctypes.data % 256 + skew
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def aligned_copy(array, skew=0):
    """``array`` in memory of its own."""
    copy = aligned(array.shape, array.dtype, skew)
    copy[...] = array
    return copy


@dataclass
class Job:
    """A planned call on host memory: run it, then compare ``results`` with ``expected`` bit by bit."""

    plan: Plan | None
    buffers: list
    results: list
    expected: list

    def check(self):
        """The results must equal the reference in every bit."""
        for result, expected in zip(self.results, self.expected, strict=True):
            np.testing.assert_array_equal(bits(result), bits(expected))


def on_device(keys):
    """The same keys by address, as arrays on the device are given, and the arrays."""
    values = {name: getattr(keys, name) for name in ("ids", "epochs", "thresholds", "mirrors")}
    names = [name for name, value in values.items() if isinstance(value, np.ndarray)]
    if not names:
        return keys, []
    # Side by side, as the DALI operators pack them: every array strides over the others.
    packed = aligned_copy(np.stack([values[name].astype(np.uint64) for name in names], axis=1))
    addresses = {name: DeviceArray(packed.ctypes.data + 8 * i, len(names)) for i, name in enumerate(names)}
    return SampleKeys(**{**values, **addresses}), [packed]


def bits(array):
    """The array as unsigned integers."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


@dataclass
class HideCase:
    """One call of ``hide``; ``skew``: bytes by which input and output miss a 16-byte boundary."""

    shape: tuple
    layout: str = "NCHW"
    dtype: str = "float32"
    policy: HideAndSeek | None = field(default_factory=lambda: HideAndSeek(patch_sizes=(3, 0, 8), seed=5))
    in_place: bool = False
    fill: object = 0.0
    skew: tuple = (0, 0)
    ids: list | None = None
    epoch: object = 3
    p_hide: object = None
    keys_on_device: bool = False
    parameter_bytes: int = 32_764

    def job(self):
        """Plan it."""
        samples = self.shape[0]
        size = dict(zip(self.layout, self.shape, strict=True))
        rng = np.random.default_rng(zlib.crc32(repr(self.shape).encode()))
        storage = "uint16" if self.dtype == "bfloat16" else self.dtype
        batch = rng.integers(0, 256, self.shape).astype("uint8" if storage == "uint8" else "float32")
        batch = bfloat16_bits(batch) if self.dtype == "bfloat16" else batch.astype(storage)
        ids = np.array(self.ids if self.ids is not None else [7 * n - 3 for n in range(samples)], np.int64)
        source = aligned_copy(batch, self.skew[0])
        target = source if self.in_place else aligned(self.shape, storage, self.skew[1])
        fills = fill_bits(self.dtype, self.fill, size["C"])
        buffers = [source, target, aligned_copy(fills)]
        keys = SampleKeys(0)
        if self.policy is not None:
            p_hide = self.policy.p_hide if self.p_hide is None else self.p_hide
            keys = SampleKeys(
                contract.sample_ids_u64(ids, samples),
                contract.epochs_u32(self.epoch, samples),
                contract.thresholds_u64(p_hide, samples),
            )
        if self.keys_on_device:
            keys, key_arrays = on_device(keys)
            buffers += key_arrays
        plan = plan_hide(
            input_pointer=source.ctypes.data,
            output_pointer=target.ctypes.data,
            shape=(samples, size["C"], size.get("H", 1), size["W"] if "W" in size else size["T"]),
            interleaved=self.layout == "NHWC",
            fills=fills,
            policy=self.policy,
            keys=keys,
            fills_pointer=buffers[2].ctypes.data,
            parameter_bytes=self.parameter_bytes,
        )
        return Job(plan, buffers, [target], [self.expected(batch, ids, fills)])

    def expected(self, batch, ids, fills):
        """The reference's answer, on bit patterns, so that every dtype is exact."""
        if self.policy is None or 0 in batch.shape:
            return batch
        raw = bits(batch)
        shape = [1] * batch.ndim
        shape[self.layout.index("C")] = -1
        height = self.shape[self.layout.index("H")] if "H" in self.layout else 1
        width = self.shape[self.layout.index("W" if "W" in self.layout else "T")]
        mask = reference.mask(self.policy, ids, self.epoch, height, width, self.p_hide)
        mask = mask if "H" in self.layout else mask[:, 0]
        return np.where(np.expand_dims(mask, self.layout.index("C")), fills.reshape(shape), raw)


@dataclass
class ResizeCase:
    """One call of ``resize_mirror_normalize_hide``; ``sources``: (height, width) of each image."""

    sources: list
    size: tuple | None
    channels: int = 3
    dtype: str = "float32"
    layout: str = "CHW"
    antialias: bool = True
    policy: HideAndSeek | None = field(default_factory=lambda: HideAndSeek(patch_sizes=(3, 0, 8), seed=5))
    mirror: list | None = None
    skew: int = 0
    fill_value: object = None
    mean: tuple | None = None
    std: tuple | None = None
    ids: list | None = None
    uniform: bool = False
    keys_on_device: bool = False
    parameter_bytes: int = 32_764

    def job(self):
        """Plan it; ``uniform`` passes one batch by address and stride instead of a table."""
        count = len(self.sources)
        rng = np.random.default_rng(count)
        images = [rng.integers(0, 256, (h, w, self.channels), np.uint8) for h, w in self.sources]
        mean = self.mean or (0.4 * 255,) * self.channels
        std = self.std or tuple(50.0 + c for c in range(self.channels))
        scale, shift, fill = contract.normalization(mean, std, self.fill_value, self.channels)
        ids = np.arange(count) * 11 - 2 if self.ids is None else np.array(self.ids)
        flips = np.array(self.mirror if self.mirror is not None else [0] * count, np.uint32)
        expected = reference.resize_mirror_normalize_hide(
            images, self.policy, ids, 3, self.size, flips, mean, std, self.fill_value,
            "float32" if self.dtype == "bfloat16" else self.dtype, self.layout, self.antialias,
        )  # fmt: skip
        if self.dtype == "bfloat16":
            expected = [bfloat16_bits(image) for image in expected]
        storage = "uint16" if self.dtype == "bfloat16" else self.dtype
        keys = SampleKeys(0, mirrors=flips)
        if self.policy is not None:
            thresholds = contract.thresholds_u64(self.policy.p_hide, count)
            keys = SampleKeys(contract.sample_ids_u64(ids, count), 3, thresholds, flips)
        keys, key_arrays = on_device(keys) if self.keys_on_device else (keys, [])
        if self.uniform:
            sources = [aligned_copy(np.stack(images))]
            results = [aligned((count, *expected[0].shape), storage, self.skew)]
            height, width = self.sources[0]
            place = Images(sources[0].ctypes.data, height, width, count, self.channels, height * width * self.channels)
            outputs = results[0].ctypes.data
            expected = [np.stack(expected)]
        else:
            sources = [aligned_copy(image, 1 + n % 3) for n, image in enumerate(images)]
            results = [aligned(image.shape, storage, self.skew) for image in expected]
            place = Images(
                np.array([image.ctypes.data for image in sources], np.uint64),
                np.array([h for h, _ in self.sources]), np.array([w for _, w in self.sources]), count, self.channels,
            )  # fmt: skip
            outputs = np.array([image.ctypes.data for image in results], np.uint64)
        plan = plan_resize(
            images=place, outputs=outputs, size=self.size, scale=scale, shift=shift, fill=fill, policy=self.policy,
            keys=keys, dtype=self.dtype, interleaved=self.layout == "HWC", antialias=self.antialias,
            parameter_bytes=self.parameter_bytes,
        )  # fmt: skip
        return Job(plan, [*sources, *results, *key_arrays], results, expected)


# ---- the PTX on the CPU ------------------------------------------------------------------------------------


def load_ptxrun():
    """The PTX interpreter, or a skip that says how to get it."""
    folder = os.environ.get("HAS_DALI_PTXRUN")
    if not folder or not (Path(folder) / "ptxrun.py").is_file():
        pytest.skip("HAS_DALI_PTXRUN does not name a folder with ptxrun.py, the PTX interpreter")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import ptxrun

    return ptxrun


@cache
def ptx_of(specialisation: Specialisation, arch: str = "compute_80") -> str:
    """PTX of one specialisation, from NVRTC."""
    options = [*gpu.COMPILE_OPTIONS, *specialisation.options()]
    return load_ptxrun().compile_ptx(gpu.kernel_source(), [], options=options, arch=arch)


def run_ptx(job: Job, arch: str = "compute_80", **keywords):
    """Execute the plan's PTX on its buffers."""
    for launch in job.plan.launches if job.plan else ():
        load_ptxrun().launch(
            ptx_of(job.plan.specialisation, arch),
            job.plan.specialisation.kernel,
            (launch.grid,),
            (launch.block,),
            [launch.arguments[0]],
            shared_bytes=launch.shared_bytes,
            buffers=job.buffers,
            **keywords,
        )


# ---- the source as host C++ --------------------------------------------------------------------------------


def digest(specialisation: Specialisation) -> str:
    """A name for what is compiled."""
    return f"{specialisation.kernel}_{zlib.crc32(repr(specialisation).encode()):08x}"


def host_library(specialisation: Specialisation, folder: Path) -> ctypes.CDLL:
    """The kernel compiled by g++ behind ``cuda_host_shim.h``; skips where there is no g++."""
    path = folder / f"{digest(specialisation)}.so"
    if not path.exists():
        compile_host(specialisation, path, ("-O1", "-shared", "-fPIC"), "")
    library = ctypes.CDLL(str(path))
    library.run_kernel.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t]
    library.run_kernel.restype = ctypes.c_int
    return library


def compile_host(specialisation: Specialisation, path: Path, options, main: str) -> None:
    """g++ on the shim, the kernel source and ``main``; warnings are errors."""
    source = path.with_suffix(".cpp")
    structure = "HideArguments" if specialisation.kernel == "hide" else "ResizeArguments"
    source.write_text(
        f'#include "{HERE / "cuda_host_shim.h"}"\n#line 1 "hide_and_seek.cu"\n{gpu.kernel_source()}\n'
        f'#line 1 "run"\nRUN_KERNEL({specialisation.kernel}, {structure})\n{main}\n'
    )
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Wno-unused-function")
    command = ["g++", "-std=c++17", "-ffp-contract=off", "-DHOST_SHIM", *warnings, *options]
    try:
        done = subprocess.run(
            [*command, *specialisation.options(), "-o", str(path), str(source)], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("g++ is not installed")
    assert done.returncode == 0, done.stderr[:4000]


def run_host(job: Job, folder: Path) -> None:
    """Execute the plan with the host build."""
    for launch in job.plan.launches if job.plan else ():
        library = host_library(job.plan.specialisation, folder)
        failed = library.run_kernel(launch.arguments.ctypes.data, launch.grid, launch.block, launch.shared_bytes)
        assert failed == 0, {1: "deadlock at a barrier", 2: "write beyond the planned shared memory"}[failed]
