"""This project's operators on batches in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.bench.harness import Contender, Step
from has_dali.bench.peers.op_check import checker
from has_dali.bench.peers.op_job import CHANNELS, FUSED, Buffers, OpJob
from has_dali.functional import hide
from has_dali.kernels import contract, cpu
from has_dali.kernels.cpu_fused import fused_image
from has_dali.kernels.threads import run_chunks

OURS = "has_dali"
LAYOUTS = {"uint8": "NHWC", "float32": "NCHW"}
"""How decoders leave images, and how networks take them."""


def sample_ids(job: OpJob, buffer: int) -> npt.NDArray[np.int64]:
    """(N,) ids of the images of a batch: each batch has masks of its own, the same at each turn."""
    return np.arange(job.batch, dtype=np.int64) + buffer * job.batch


def contenders(job: OpJob, buffers: Buffers) -> list[Contender]:
    """Ours; the first is the baseline."""
    return _fused(job, buffers) if job.kind == FUSED else _hide(job, buffers)


def _hide(job: OpJob, buffers: Buffers) -> list[Contender]:
    layout = LAYOUTS[job.dtype]
    check = checker(job, buffers, layout)

    @contextmanager
    def opened(in_place: bool) -> Iterator[Step]:
        batches = buffers.batches(layout)
        at, ids = -1, [sample_ids(job, i) for i in range(len(batches))]

        def step() -> npt.NDArray:
            nonlocal at
            at = (at + 1) % len(batches)
            batch = batches[at]
            out = batch if in_place else spare[at]
            return hide(batch, job.policy, ids[at], 0, fill=job.fill, layout=layout, out=out)

        spare = [] if in_place else [np.full_like(batch, 1) for batch in batches]
        yield step

    return [
        Contender(
            OURS, "has_dali, in place", lambda: opened(True), check,
            units=job.batch, kind="ours", extra={"form": "in place", "layout": layout},
        ),
        Contender(
            "has_dali_out", "has_dali, into other memory", lambda: opened(False), check,
            units=job.batch, kind="ours", extra={"form": "out of place", "layout": layout},
        ),
    ]  # fmt: skip


def _fused(job: OpJob, buffers: Buffers) -> list[Contender]:
    check = checker(job, buffers, "NCHW", stacked)
    size = None

    @contextmanager
    def into_memory() -> Iterator[Step]:
        batches, outputs = buffers.batches("NHWC"), buffers.outputs()
        words = cpu.pack_settings(
            job.policy, size, contract.IMAGENET_MEAN, contract.IMAGENET_STD, None, False, True, True, CHANNELS
        )
        threshold, epoch = np.uint64(contract.threshold(job.policy.p_hide)), np.uint64(0)
        images = [list(batch) for batch in batches]
        targets = [[image.ctypes.data for image in output] for output in outputs]
        ids = [sample_ids(job, i).astype(np.uint64) for i in range(len(batches))]
        at = -1

        def step() -> npt.NDArray:
            nonlocal at
            at = (at + 1) % len(batches)
            own, target, keys = images[at], targets[at], ids[at]

            def work(begin: int, end: int) -> None:
                for n in range(begin, end):
                    fused_image(own[n], target[n], keys[n], epoch, threshold, False, words)

            run_chunks(work, job.batch, outputs[at].nbytes, job.threads)
            return outputs[at]

        yield step

    @contextmanager
    def new_arrays() -> Iterator[Step]:
        batches = buffers.batches("NHWC")
        at = -1

        def step() -> Any:
            nonlocal at
            at = (at + 1) % len(batches)
            ids = sample_ids(job, at)
            return cpu.resize_mirror_normalize_hide(list(batches[at]), job.policy, ids, 0, size, threads=job.threads)

        yield step

    return [
        Contender(
            OURS, "has_dali, into reused memory", into_memory, check,
            units=job.batch, kind="ours", extra={"form": "fused"},
        ),
        Contender(
            "has_dali_new", "has_dali, into new arrays", new_arrays, check,
            units=job.batch, kind="ours", extra={"form": "fused"},
        ),
    ]  # fmt: skip


def stacked(output: Any) -> npt.NDArray:
    """One array from an array or from a list of images."""
    return np.stack(output) if isinstance(output, list) else np.asarray(output)
