"""Bounds of the operators: a copy of the batch, and writing the bytes of the hidden cells alone, known in advance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from has_dali.bench.harness import Contender, Step
from has_dali.bench.peers.op_has_dali import LAYOUTS, sample_ids
from has_dali.bench.peers.op_job import CHANNELS, FUSED, Buffers, OpJob
from has_dali.kernels.compiling import kernel
from has_dali.kernels.simd import load16
from has_dali.kernels.simd_memory import prefetch_read, store_fence
from has_dali.kernels.simd_planes import store_wide
from has_dali.kernels.simd_types import CACHE_LINE
from has_dali.kernels.threads import run_chunks

COPY, STREAMED, MEMSET = "copy", "copy_streamed", "memset"
_AHEAD = 2048  # bytes of the source asked for early


def contenders(job: OpJob, buffers: Buffers) -> list[Contender]:
    """Two copies of what comes out, the faster of which is the bound, and, of hide, the hidden bytes alone."""
    copied = "output" if job.kind == FUSED else "batch"
    copies = [
        Contender(
            COPY, f"bound: np.copyto of the {copied}", lambda: _copies(job, buffers, np.copyto),
            units=job.batch, kind="bound", extra={"form": "copy"},
        ),
        Contender(
            STREAMED, f"bound: copy of the {copied} past the caches", lambda: _copies(job, buffers, copy_streamed),
            units=job.batch, kind="bound", extra={"form": "copy"},
        ),
    ]  # fmt: skip
    if job.kind == FUSED:
        return copies
    memset = Contender(
        MEMSET, "bound: memset of the same cells, drawn beforehand", lambda: _memsets(job, buffers),
        units=job.batch, kind="bound", extra={"form": "in place"},
    )  # fmt: skip
    return [*copies, memset]


@contextmanager
def _copies(job: OpJob, buffers: Buffers, copy: Callable[[npt.NDArray, npt.NDArray], None]) -> Iterator[Step]:
    arrays = buffers.outputs() if job.kind == FUSED else buffers.batches(LAYOUTS[job.dtype])
    at = -1

    def step() -> npt.NDArray:
        nonlocal at
        at = (at + 1) % len(arrays)
        # The source is the oldest: what was written last would still be in the cache.
        target, source = arrays[at], arrays[(at + 1) % len(arrays)]
        run_chunks(
            lambda begin, end: copy(target[begin:end], source[begin:end]), len(target), target.nbytes, job.threads
        )
        return target

    yield step


def copy_streamed(target: npt.NDArray, source: npt.NDArray) -> None:
    """Copy a C-contiguous array with stores that fetch no line of the target and leave none in the caches.

    ``np.copyto`` is the C library's memcpy, which stores so only from a size of its own choice on.
    """
    count = target.nbytes
    ahead = min(-target.ctypes.data % CACHE_LINE, count)
    whole = (count - ahead) // CACHE_LINE
    to, origin = (array.reshape(-1).view(np.uint8) for array in (target, source))
    to[:ahead] = origin[:ahead]
    _stream_lines(to.ctypes.data + ahead, origin.ctypes.data + ahead, whole)
    rest = ahead + whole * CACHE_LINE
    to[rest:] = origin[rest:]


@kernel
def _stream_lines(target, source, count):  # type: ignore[no-untyped-def]
    """Copy ``count`` cache lines to whole lines at address ``target``."""
    for line in range(count):
        at = line * CACHE_LINE
        prefetch_read(source + at + _AHEAD)
        store_wide(target + at, False, True, load16(source + at))
    store_fence()


@contextmanager
def _memsets(job: OpJob, buffers: Buffers) -> Iterator[Step]:
    batches = buffers.batches(LAYOUTS[job.dtype])
    tables = [hidden_runs(job, sample_ids(job, i)) for i in range(len(batches))]
    geometry = tables[0].geometry
    value = np.uint8(job.fill)
    at = -1

    def step() -> npt.NDArray:
        nonlocal at
        at = (at + 1) % len(batches)
        batch, table = batches[at], tables[at]

        def work(begin: int, end: int) -> None:
            write_runs(batch.ctypes.data, value, geometry, table.images, table.bands, table.runs, begin, end)

        run_chunks(work, len(batch), batch.nbytes, job.threads)
        return batch

    yield step


@dataclass(frozen=True)
class HiddenRuns:
    """Hidden bytes of a batch.

    Args:
        geometry: (4,) int64 bytes of an image, planes, bytes of a plane, bytes of a row.
        images: (N + 1,) int64, where each image's bands begin.
        bands: (bands + 1, 3) int64 first row, end, and where its runs begin; rows of a band are alike.
        runs: (runs, 2) int64 first byte within a row and end.
    """

    geometry: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    bands: npt.NDArray[np.int64]
    runs: npt.NDArray[np.int64]


def hidden_runs(job: OpJob, ids: npt.NDArray[np.int64]) -> HiddenRuns:
    """The cells that ``job.policy`` hides in these images, as runs of bytes in the job's layout."""
    item = np.dtype(job.dtype).itemsize
    planes, pixel = (CHANNELS, item) if LAYOUTS[job.dtype] == "NCHW" else (1, CHANNELS * item)
    images: list[int] = [0]
    bands: list[tuple[int, int, int]] = []
    runs: list[tuple[int, int]] = []
    for mask in job.policy.mask(ids, 0, job.size, job.size):
        starts = np.flatnonzero(np.r_[True, (mask[1:] != mask[:-1]).any(axis=1)]).tolist()
        for first, end in zip(starts, [*starts[1:], job.size], strict=True):
            edges = np.flatnonzero(np.diff(np.r_[False, mask[first], False].astype(np.int8)))
            bands.append((first, end, len(runs)))
            runs += [(begin * pixel, stop * pixel) for begin, stop in edges.reshape(-1, 2).tolist()]
        images.append(len(bands))
    bands.append((0, 0, len(runs)))
    row = job.size * pixel
    geometry = (job.image_bytes, planes, job.size * row, row)
    as_array = [np.array(values, np.int64) for values in (geometry, images, bands)]
    return HiddenRuns(as_array[0], as_array[1], as_array[2], np.array(runs, np.int64).reshape(-1, 2))


@intrinsic
def _memset(typingctx: Any, address: Any, value: Any, count: Any) -> Any:
    """The C library's memset."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        cgutils.memset(builder, pointer, args[2], args[1])
        return context.get_dummy_value()

    return types.void(types.intp, types.uint8, types.intp), codegen


@numba.njit(nogil=True)
def write_runs(address, value, geometry, images, bands, runs, begin, end):  # type: ignore[no-untyped-def]
    """Write ``value`` to every hidden byte of images ``begin`` to ``end`` of the batch at ``address``."""
    for n in range(begin, end):
        for plane in range(geometry[1]):
            start = address + n * geometry[0] + plane * geometry[2]
            for band in range(images[n], images[n + 1]):
                for y in range(bands[band, 0], bands[band, 1]):
                    line = start + y * geometry[3]
                    for run in range(bands[band, 2], bands[band + 1, 2]):
                        _memset(line + runs[run, 0], value, runs[run, 1] - runs[run, 0])
