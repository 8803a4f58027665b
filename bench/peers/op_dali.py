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
from has_dali.bench.peers.op_job import CHANNELS, FUSED, PIXEL_FILL, Buffers, OpJob
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD

_AWAY = 1e6  # pixels: where boxes that hide nothing go, outside any image


def contenders(job: OpJob, buffers: Buffers) -> list[Contender]:
    """``fn.erase`` with a box per cell, a grid of coins made large, and this project's operator in the same graph."""
    layout = "NCHW" if job.kind == FUSED else LAYOUTS[job.dtype]
    check = checker(job, buffers, layout, lambda output: output.as_array())
    and_normalized = " and crop_mirror_normalize" if job.kind == FUSED else ""
    graphs: list[tuple[str, str, str, Callable[[OpJob, Any], Any]]] = [
        ("dali_erase", f"DALI fn.erase{and_normalized}: a box per cell", "peer", erase),
        ("dali_grid", f"DALI fn.resize of a grid of coins, arithmetic{and_normalized}", "peer", grid),
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
    # Depth 1: the time of a batch is the time of its operators, not that of a queue which the turns of others fill.
    pipeline = Pipeline(job.batch, job.threads, None, prefetch_queue_depth=1)
    with pipeline:
        images = fn.external_source(lambda: next(turns), batch=True, layout=layout[1:], no_copy=True)
        pipeline.set_outputs(graph(job, images))
    pipeline.build()
    yield lambda: pipeline.run()[0]


def erase(job: OpJob, images: Any) -> Any:
    """Coins of the cells decide which boxes lie on the image; its size decides how many boxes there are."""
    from nvidia.dali import fn, types

    anchors, edge = cells(job)
    hidden = fn.random.coin_flip(anchors[:, :1], probability=job.policy.p_hide, dtype=types.UINT8, seed=2)
    anchor = fn.reshape(anchors + (1 - hidden) * _AWAY, shape=[-1])
    extent = fn.reshape(anchors * 0.0 + edge, shape=[-1])
    fill = list(PIXEL_FILL) if job.kind == FUSED else job.fill
    erased = fn.erase(images, anchor=anchor, shape=extent, axis_names="HW", fill_value=fill)
    return normalized(erased) if job.kind == FUSED else erased


def cells(job: OpJob) -> tuple[Any, Any]:
    """Nodes: (cells, 2) float32 row and column of the cells of each image in pixels, and the patch size of each."""
    from nvidia.dali import fn, types

    sizes = job.policy.patch_sizes
    grids = [cell_grid(job.size, size) * size for size in sizes]
    if len(sizes) == 1:
        return types.Constant(grids[0]), float(sizes[0])
    choice = fn.cast(fn.random.uniform(values=[float(n) for n in range(len(sizes))], seed=1), dtype=types.INT32)
    counts = np.array([len(grid) for grid in grids], np.int64)
    first, count, edge = (
        fn.reshape(fn.slice(types.Constant(table), start=choice, shape=[1], axes=[0]), shape=[])
        for table in (np.cumsum(counts) - counts, counts, np.array(sizes, np.float32))
    )
    table = types.Constant(np.concatenate(grids))
    return fn.slice(table, start=first, shape=count, axes=[0]), edge


def grid(job: OpJob, images: Any) -> Any:
    """A coin per cell as an image of one pixel per cell, made as large as the image, multiplied and added.

    In each layout the form that was fastest (one core, S = 8): of CHW one channel that arithmetic repeats (5.2 k
    images/s, against 3.1 k with three), fused after normalising, where nothing is added; of HWC three channels, and
    the fill is made while the grid is small (2.4 k against 2.1 k).
    """
    from nvidia.dali import fn, types

    sizes = job.policy.patch_sizes
    edge = fn.random.uniform(values=[float(size) for size in sizes], seed=1) if len(sizes) > 1 else float(sizes[0])
    end = job.size / edge  # in cells: of larger ones there are more coins than the image has cells
    most = -(-job.size // min(sizes))
    planar = job.kind == FUSED or LAYOUTS[job.dtype] == "NCHW"
    shape, layout = ([1, most, most], "CHW") if planar else ([most, most, 1], "HWC")
    coins = fn.random.coin_flip(probability=1 - job.policy.p_hide, shape=shape, dtype=types.UINT8, seed=2)

    def enlarged(cells: Any) -> Any:
        return fn.resize(
            fn.reshape(cells, layout=layout), resize_x=job.size, resize_y=job.size, interp_type=types.INTERP_NN,
            roi_start=[0.0, 0.0], roi_end=[end, end] if len(sizes) == 1 else fn.stack(end, end),
        )  # fmt: skip

    if planar:
        return (normalized(images) if job.kind == FUSED else images) * enlarged(coins)
    one = np.ones((1, 1, CHANNELS), np.uint8)
    filled = (types.Constant(one) - coins) * types.Constant(np.full_like(one, job.fill))
    return images * enlarged(coins * types.Constant(one)) + enlarged(filled)


def normalized(images: Any) -> Any:
    """Uint8 HWC to normalised float32 CHW."""
    from nvidia.dali import fn, types

    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)
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
