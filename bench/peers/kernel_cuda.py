"""The CUDA kernels on batches in device memory, torch's way on the same batches, and a device copy as the bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.bench.harness import Contender, Step
from has_dali.bench.peers.op_check import checker
from has_dali.bench.peers.op_has_dali import sample_ids
from has_dali.bench.peers.op_job import CHANNELS, FUSED, Buffers, OpJob, over_batches
from has_dali.kernels import gpu

ROTATED_BYTES = 256 << 20
"""More than any L2 holds; the batches that are rotated hold at least as much."""
OURS, COPY = "has_dali", "copy"
PEERS = ("torch_eager", "torch_compile")


def device_buffers(job: OpJob) -> Buffers:
    """Host side of the batches of a job: as many as it takes to exceed the L2."""
    return Buffers(job.dtype, job.batch, job.size, max(2, -(-ROTATED_BYTES // (job.batch * job.image_bytes))))


def contenders(job: OpJob, buffers: Buffers, layout: str, peers: Sequence[str] = PEERS) -> list[Contender]:
    """Ours in place (or fused), torch eager and compiled, and the copy.

    Args:
        layout: in memory, "NCHW" or "NHWC": of the batch, or of what the fused kernel makes of an NHWC batch.
    """
    form = "fused" if job.kind == FUSED else "in place"
    everyone = [
        Contender(
            OURS, f"has_dali, {form}", lambda: _ours(job, buffers, layout), checker(job, buffers, layout, to_host),
            requires=("cupy",), units=job.batch, kind="ours", extra={"form": form},
        ),
        Contender(
            COPY, "bound: copy from device memory to device memory", _copies, requires=("cupy",),
            units=ROTATED_BYTES / job.output_bytes, kind="bound", extra={"form": "copy"},
        ),
    ]  # fmt: skip
    for key, label in zip(PEERS, ("torch, eager", "torch.compile"), strict=True):
        opened = partial(_torch, job, buffers, layout, key == "torch_compile")
        check = checker(job, buffers, "NCHW", to_host)
        extra = {"form": form}
        everyone.append(Contender(key, label, opened, check, requires=("torch",), units=job.batch, extra=extra))
    return [one for one in everyone if one.kind != "peer" or one.key in peers]


def to_host(array: Any) -> npt.NDArray:
    """A CuPy array or a torch tensor as a NumPy array."""
    return array.get() if hasattr(array, "get") else array.cpu().numpy()


def our_step(job: OpJob, layout: str, batch: Any, out: Any, ids: npt.NDArray[np.int64]) -> Step:
    """One launch of our kernel on one batch; ``out``: of the fused kernel, where it writes."""
    if job.kind == FUSED:
        return partial(
            gpu.resize_mirror_normalize_hide, batch, job.policy, ids, 0,
            size=None, dtype=job.output_dtype, output_layout=layout[1:], out=out,
        )  # fmt: skip
    return partial(gpu.hide, batch, job.policy, ids, 0, fill=job.fill, layout=layout, out=batch)


@contextmanager
def _ours(job: OpJob, buffers: Buffers, layout: str) -> Iterator[Step]:
    import cupy

    source = _source(job, buffers, layout)
    batches = [cupy.asarray(source) for _ in range(buffers.count)]
    shape = (job.batch, CHANNELS, job.size, job.size)
    shape = shape if layout == "NCHW" else (job.batch, job.size, job.size, CHANNELS)
    outputs = [cupy.empty(shape, job.output_dtype) if job.kind == FUSED else None for _ in batches]
    steps = [
        our_step(job, layout, batch, out, sample_ids(job, i))
        for i, (batch, out) in enumerate(zip(batches, outputs, strict=True))
    ]
    with over_batches(_called, lambda: steps) as step:
        yield step


def _called(step: Callable[[], Any]) -> Any:
    return step()


def _source(job: OpJob, buffers: Buffers, layout: str) -> npt.NDArray:
    """Pristine pixels in the layout of the input, dense."""
    nhwc = job.kind == FUSED or layout == "NHWC"
    return buffers.pristine if nhwc else np.ascontiguousarray(buffers.pristine.transpose(0, 3, 1, 2))


@contextmanager
def _torch(job: OpJob, buffers: Buffers, layout: str, compiled: bool) -> Iterator[Step]:
    import torch

    from has_dali.bench.peers.op_torch import eager

    torch.compiler.reset()
    apply: Any = eager(job, "cuda", layout)
    work = torch.compile(apply, dynamic=False) if compiled else apply

    def made() -> list[Any]:
        source = torch.from_numpy(_source(job, buffers, layout))
        tensors = [source.cuda() for _ in range(buffers.count)]
        as_nchw = job.kind != FUSED and layout == "NHWC"
        return [tensor.permute(0, 3, 1, 2) for tensor in tensors] if as_nchw else tensors

    with over_batches(work, made) as step:
        yield step


@contextmanager
def _copies() -> Iterator[Step]:
    import cupy

    source, target = (cupy.zeros(ROTATED_BYTES, np.uint8) for _ in range(2))
    yield lambda: cupy.copyto(target, source)
