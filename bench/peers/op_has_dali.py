"""This project's operators on batches in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.bench.harness import Contender, Step
from has_dali.bench.peers.op_check import checker
from has_dali.bench.peers.op_job import FUSED, Buffers, OpJob
from has_dali.functional import hide
from has_dali.kernels import cpu
from has_dali.kernels.cpu import aligned_empty

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

        spare = [] if in_place else [aligned_empty(batch.shape, batch.dtype) for batch in batches]
        for memory in spare:
            memory.fill(1)  # its pages are there before the clock starts
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
    nothing = replace(job, policy=job.policy.with_(p_hide=0.0))

    @contextmanager
    def opened(hides: bool, reused: bool) -> Iterator[Step]:
        batches = buffers.batches("NHWC")
        outputs = buffers.outputs() if reused else [None] * len(batches)
        policy = job.policy if hides else None
        at = -1

        def step() -> Any:
            nonlocal at
            at = (at + 1) % len(batches)
            ids = sample_ids(job, at)
            return cpu.resize_mirror_normalize_hide(
                list(batches[at]), policy, ids, 0, None, threads=job.threads, out=outputs[at]
            )

        yield step

    return [
        Contender(
            OURS, "has_dali, into reused memory", lambda: opened(True, True), checker(job, buffers, "NCHW", stacked),
            units=job.batch, kind="ours", extra={"form": "fused"},
        ),
        Contender(
            "has_dali_new", "has_dali, into new arrays", lambda: opened(True, False),
            checker(job, buffers, "NCHW", stacked), units=job.batch, kind="ours", extra={"form": "fused"},
        ),
        Contender(
            "has_dali_plain", "has_dali, into reused memory, normalised without hiding", lambda: opened(False, True),
            checker(nothing, buffers, "NCHW", stacked), units=job.batch, kind="ours", extra={"form": "normalised"},
        ),
    ]  # fmt: skip


def stacked(output: Any) -> npt.NDArray:
    """One array from an array or from a list of images."""
    return np.stack(output) if isinstance(output, list) else np.asarray(output)
