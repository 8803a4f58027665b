"""Batches by position from images in memory, computed by background threads that work ahead of their reader.

Each image's window is read where the image lies, in one block or in memory-mapped shards: in place if it spans whole
rows, else through a small scratch image whose border is zero; the fused CPU kernel then resamples, mirrors, normalises
and hides as it does for files.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types
from numba.extending import intrinsic

from has_dali.kernels import cpu
from has_dali.kernels.compiling import kernel
from has_dali.kernels.cpu_fused import HIDE, fused_image
from has_dali.kernels.cpu_hide import copy_run
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.simd import address_of
from has_dali.pipelines import array_regions
from has_dali.pipelines.arrays import CHANNELS, DecodedSource
from has_dali.pipelines.buffers import Buffers
from has_dali.pipelines.plan import EvalPlan
from has_dali.pipelines.sampler import Position, Sampler, labels_of, shown_ids
from has_dali.pipelines.spec import ImageSpec

IdArray: TypeAlias = "npt.NDArray[np.int64]"

_POLITENESS = 5  # steps of the system's priority
_MORE_BUFFERS = 4  # than batches computed ahead: the reader's, and those that others still hold


class ArrayStream:
    """Any batch by position, computed ahead of the reader as long as positions follow one another.

    Every batch is a tensor of its own, the reader's to keep. A position that does not follow drops the work under way,
    at most ``prefetch`` batches. The threads end with the stream.

    Args:
        spec: what is computed.
        source: the images.
        sampler: which ids make up a batch.
        threads: batches computed at the same time, at most ``prefetch``.
        prefetch: batches computed ahead of the reader.
        device: the CPU, or a CUDA device that batches are copied to, from pinned memory.
    """

    def __init__(
        self, spec: ImageSpec, source: DecodedSource, sampler: Sampler,
        threads: int, prefetch: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.spec, self._sampler, self._prefetch, self._device = spec, sampler, prefetch, device
        # The renderer is an object of its own: work that refers to its stream would keep it alive.
        self._renderer = Renderer(spec, source, sampler, threads, device, prefetch + _MORE_BUFFERS)
        self._workers = max(min(threads, prefetch), 1)
        self._start()

    def _start(self) -> None:
        """Threads, and nothing scheduled: when the stream is made, and again in a process forked since."""
        self._process = os.getpid()
        # Threads work on batches of their own, which come out in order; they end when the pool is freed.
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="has_dali_arrays", initializer=_give_way)
        self._next: Position | None = None
        self._scheduled: deque[tuple[Position, Future[tuple[IdArray, IdArray, torch.Tensor]]]] = deque()

    def batch(self, position: Position) -> tuple[IdArray, IdArray, torch.Tensor]:
        """The ids, labels and images of one batch; work on the following ones goes on meanwhile.

        Raises:
            RuntimeError, MemoryError: what went wrong while the batch was computed.
        """
        self._check_process()
        if not self._scheduled or self._scheduled[0][0] != position:
            self.close()
            self._next = position
        self._work_ahead()
        try:
            ids, labels, images = self._scheduled[0][1].result()
        except BaseException:
            self.close()  # the next call computes its batch anew
            raise
        self._scheduled.popleft()
        self._work_ahead()
        return ids, labels, images if self._device.type == "cpu" else images.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Drop the work under way; the next batch starts anew."""
        self._check_process()
        for _, future in self._scheduled:
            future.cancel()
        self._scheduled.clear()

    def _check_process(self) -> None:
        """Start anew in a forked process: it has none of the threads, and locks as these left them, perhaps shut."""
        if self._process != os.getpid():
            self._renderer.start_anew()
            self._start()

    def _work_ahead(self) -> None:
        while self._next is not None and len(self._scheduled) < self._prefetch:
            self._scheduled.append((self._next, self._pool.submit(self._renderer.render, self._next)))
            self._next = self._sampler.following(self._next)


def _give_way() -> None:
    """Let the reader's threads go first on a full machine: batches are ready long before they are asked for.

    Without it the system often takes the reader's core for the next batch as soon as the last one is handed out
    (measured on two busy cores: 0.8 instead of 0.1 ms of waiting in every other step).
    """
    with contextlib.suppress(OSError, AttributeError):  # not on every system
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _POLITENESS)


@dataclass(frozen=True)
class Windows:
    """Which images make up a batch, where they lie, and how each is drawn.

    Args:
        addresses: of all images; shapes: (N, 2) their sides.
        rows: which of them make up the batch; keys: what masks are drawn for.
        start, shape: the window of each; flips: 1 where it is mirrored.
    """

    addresses: IdArray
    shapes: IdArray
    rows: IdArray
    keys: IdArray
    start: npt.NDArray[np.int32]
    shape: npt.NDArray[np.int32]
    flips: npt.NDArray[np.int32]


class Renderer:
    """Computes batches; what an evaluation resamples is prepared once, when its first batch is asked for.

    Args:
        spec, source, sampler, threads: see ``ArrayStream``.
        device: for a CUDA device batches are put into memory that it can read while the host goes on.
        buffers: batches whose memory is kept for later ones.
    """

    def __init__(
        self,
        spec: ImageSpec,
        source: DecodedSource,
        sampler: Sampler,
        threads: int,
        device: torch.device,
        buffers: int = _MORE_BUFFERS,
    ) -> None:
        self._spec, self._source, self._sampler = spec, source, sampler
        self._threads, self._device = threads, device
        self._settings: dict[HideAndSeek | None, npt.NDArray[np.int64]] = {}
        self._kept = buffers
        self._regions: array_regions.Regions | None = None
        self.start_anew()

    def start_anew(self) -> None:
        """A lock of its own, and buffers that no thread of another process was writing to."""
        self._lock = threading.Lock()
        self._buffers = Buffers(self._kept)

    def render(self, position: Position) -> tuple[IdArray, IdArray, torch.Tensor]:
        """Ids, labels and images of one batch, on the CPU.

        Labels too: looking them up lets go of Python's lock, and a reader who did so while the next batch is begun
        would wait for it (measured on CIFAR: 0.75 ms of a step of 60).
        """
        ids = self._sampler.ids(*position)
        images = self._empty(len(ids))
        windows = self._windows(shown_ids(ids), position)
        epoch, address = np.uint64(position[0]), images.data_ptr()
        nbytes = images.numel() * images.element_size()
        out_bytes = nbytes // len(ids)
        keys = windows.keys.astype(np.uint64)

        policies = self._spec.policies(position[0])
        for view, policy in enumerate(policies):
            _render(
                windows.addresses, windows.shapes, windows.rows, windows.start, windows.shape, windows.flips, keys,
                epoch, self._packed(policy), address + view * (out_bytes // len(policies)), out_bytes, 0, len(ids),
            )  # fmt: skip
        labels = labels_of(self._source.labels, ids)
        return ids, labels, images.movedim(-1, -3) if self._spec.channels_last else images

    def _packed(self, policy: HideAndSeek | None) -> npt.NDArray[np.int64]:
        """What the kernel takes for a policy, which a schedule may change from epoch to epoch."""
        if policy not in self._settings:
            spec = self._spec
            self._settings[policy] = cpu.pack_settings(
                policy, (spec.size, spec.size), spec.mean, spec.std, spec.fill_value, half=spec.dtype == "float16",
                planar=not spec.channels_last, antialias=spec.antialias, channels=CHANNELS,
            )  # fmt: skip
        return self._settings[policy]

    def _windows(self, ids: IdArray, position: Position) -> Windows:
        keys = self._sampler.keys_of(ids, position[1])
        plan, source = self._spec.plan, self._source
        source.check(ids)
        if not isinstance(plan, EvalPlan):
            boxes = plan(source.shapes[ids], keys, np.full(len(ids), position[0], np.int64))
            return Windows(source.addresses, source.shapes, ids, keys, *boxes)
        with self._lock:
            if self._regions is None:
                self._regions = array_regions.prepare(self._spec, plan, source, self._sampler, self._threads)
        regions, flips = self._regions, np.zeros(len(ids), np.int32)
        start = regions.start[ids]
        return Windows(regions.addresses, regions.shapes, ids, keys, start, np.full_like(start, self._spec.size), flips)

    def _empty(self, count: int) -> torch.Tensor:
        """Memory for a batch that nobody else has."""
        size, dtype = self._spec.size, getattr(torch, self._spec.dtype)
        views = () if self._spec.views is None else (self._spec.views,)
        shape = (count, *views, *((size, size, CHANNELS) if self._spec.channels_last else (CHANNELS, size, size)))
        if self._device.type == "cpu":
            with self._lock:
                return self._buffers.take(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)
        with torch.cuda.device(self._device):  # else this thread would start a context on the first device
            return torch.empty(shape, dtype=dtype, pin_memory=True)


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    """An address as an untyped pointer."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return (types.voidptr(types.intp), codegen) if isinstance(address, types.Integer) else None


@kernel
def _render(  # type: ignore[no-untyped-def]
    addresses, shapes, rows, start, shape, flips, keys, epoch, settings, out, out_bytes, begin, end
):
    """Write images ``begin`` to ``end`` of a batch, ``out_bytes`` each, from address ``out`` on.

    Args:
        addresses: (M,) int64, shapes: (M, 2) int64, of all images; see ``DecodedSource``.
        rows: (N,) int64, which image; start, shape: (N, 2) int32, its window; flips: (N,) int32.
        keys: (N,) uint64; epoch: uint64; settings: see ``cpu.pack_settings``.
    """
    largest = widest = 0
    for n in range(begin, end):
        largest, widest = max(largest, shape[n, 0] * shape[n, 1]), max(widest, shape[n, 1])
    scratch, border = np.empty(largest * CHANNELS, np.uint8), np.zeros(widest * CHANNELS, np.uint8)
    threshold = np.uint64(settings[HIDE])
    for n in range(begin, end):
        height, width = shapes[rows[n], 0], shapes[rows[n], 1]
        top, left = np.int64(start[n, 0]), np.int64(start[n, 1])
        box_h, box_w = np.int64(shape[n, 0]), np.int64(shape[n, 1])
        length = box_w * CHANNELS
        first = addresses[rows[n]] + (top * width + left) * CHANNELS
        if box_w == width and left == 0 and top >= 0 and top + box_h <= height:  # whole rows: as they lie
            window = numba.carray(_pointer(first), (box_h * length,), np.uint8)
        else:
            window = scratch[: box_h * length]
            _copy_window(
                address_of(window), first, address_of(border),
                box_h, box_w, width, max(-top, 0), height - top, max(-left, 0), width - left,
            )  # fmt: skip
        fused_image(
            window.reshape((box_h, box_w, CHANNELS)), out + n * out_bytes, keys[n], epoch, threshold, flips[n] != 0,
            settings,
        )  # fmt: skip


@kernel
def _copy_window(  # type: ignore[no-untyped-def]
    window, image, border, box_h, box_w, width, first_row, end_row, first_column, end_column
):
    """Fill a window of ``box_h`` x ``box_w`` pixels at address ``window``.

    Its pixel (0, 0) would be at address ``image``, of an image ``width`` pixels wide that covers rows ``first_row`` to
    ``end_row`` and columns ``first_column`` to ``end_column`` of the window. The rest is 0, as at address ``border``.
    """
    length, stride = box_w * CHANNELS, width * CHANNELS
    begin = min(first_column, box_w) * CHANNELS
    end = max(min(end_column, box_w) * CHANNELS, begin)
    for y in range(box_h):
        row, source = window + y * length, image + y * stride
        if y < first_row or y >= end_row:
            copy_run(row, border, length)
        else:
            copy_run(row, border, begin)
            copy_run(row + begin, source + begin, end - begin)
            copy_run(row + end, border, length - end)
