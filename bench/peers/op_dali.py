"""Hide-and-Seek in a DALI graph on batches in memory: from DALI's own operators, and with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.bench.harness import Contender, Step
from has_dali.bench.peers.op_check import checker
from has_dali.bench.peers.op_has_dali import LAYOUTS
from has_dali.bench.peers.op_job import FUSED, PIXEL_FILL, Buffers, OpJob
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD

_AWAY = 1e6  # pixels: where boxes that hide nothing go, outside any image


def contenders(job: OpJob, buffers: Buffers) -> list[Contender]:
    """``fn.erase`` with a box per cell, and this project's operator in the same graph."""
    layout = "NCHW" if job.kind == FUSED else LAYOUTS[job.dtype]
    check = checker(job, buffers, layout, lambda output: output.as_array())
    normalized = " and crop_mirror_normalize" if job.kind == FUSED else ""
    graphs: list[tuple[str, str, str, Callable[[OpJob, Any], Any]]] = [
        ("dali_erase", f"DALI fn.erase{normalized}: a box per cell", "peer", erase),
        ("has_dali_fn", "has_dali.fn in a DALI graph", "ours", ours),
    ]
    return [
        Contender(
            key, label, lambda graph=graph: _running(job, buffers, graph), check,  # type: ignore[misc]
            requires=("nvidia.dali",), units=job.batch, kind=kind,
            extra={"form": "fused" if job.kind == FUSED else "out of place", "layout": LAYOUTS[job.dtype]},
        )
        for key, label, kind, graph in graphs
    ]  # fmt: skip


@contextmanager
def _running(job: OpJob, buffers: Buffers, graph: Callable[[OpJob, Any], Any]) -> Iterator[Step]:
    from nvidia.dali import Pipeline, fn

    layout = LAYOUTS[job.dtype]
    turns = cycle(buffers.batches(layout))
    pipeline = Pipeline(job.batch, job.threads, None)
    with pipeline:
        images = fn.external_source(lambda: next(turns), batch=True, layout=layout[1:], no_copy=True)
        pipeline.set_outputs(graph(job, images))
    pipeline.build()
    yield lambda: pipeline.run()[0]


def erase(job: OpJob, images: Any) -> Any:
    """Coins of the cells decide which boxes lie on the image; the size is drawn for each."""
    from nvidia.dali import fn, types

    sizes = job.policy.patch_sizes
    grid = cell_grid(job.size, min(sizes))
    count = len(grid)
    edge = fn.random.uniform(values=[float(size) for size in sizes], seed=1) if len(sizes) > 1 else float(sizes[0])
    hidden = fn.random.coin_flip(probability=job.policy.p_hide, shape=[count, 1], dtype=types.UINT8, seed=2)
    anchor = fn.reshape(types.Constant(grid) * edge + (1 - hidden) * _AWAY, shape=[-1])
    extent = fn.reshape(types.Constant(np.ones((count, 2), np.float32)) * edge, shape=[-1])
    fill = list(PIXEL_FILL) if job.kind == FUSED else job.fill
    erased = fn.erase(images, anchor=anchor, shape=extent, axis_names="HW", fill_value=fill)
    if job.kind != FUSED:
        return erased
    return fn.crop_mirror_normalize(
        erased, dtype=types.FLOAT, output_layout="CHW", mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)
    )


def cell_grid(size: int, patch: int) -> npt.NDArray[np.float32]:
    """(cells, 2) row and column of the cells of ``patch`` pixels that an image has."""
    axis = np.arange(-(-size // patch), dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def ours(job: OpJob, images: Any) -> Any:
    """This project's operators; hiding copies its input first, which others may read."""
    import has_dali.fn as hfn

    if job.kind == FUSED:
        return hfn.resize_mirror_normalize_hide(images, job.policy, size=None)
    return hfn.hide_and_seek(images, job.policy, fill_value=job.fill, layout=LAYOUTS[job.dtype][1:])
