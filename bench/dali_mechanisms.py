"""Ways of bringing Hide-and-Seek into a DALI CPU graph, in turns: ``python -m has_dali.bench.dali_mechanisms``.

Each pipeline hides the same 64 uint8 images of 224 x 224 (the fused ones: resamples 64 of 300 x 400) with the kernels
of this package where the mechanism allows them; the last columns say what it costs to define it. Time beyond
the base pipeline, which only copies its input, is what the mechanism and the kernel cost together.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from has_dali.cli import run_guarded
from has_dali.console import Parser, Terminal, check_writable, write_json
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores

BATCH = 64
_CELLS = 14  # 224 / 16


def main(argv: Sequence[str]) -> int:
    """Measure every mechanism and print milliseconds per batch."""
    parser = Parser("python -m has_dali.bench.dali_mechanisms", "What each way into a DALI graph costs on the CPU.")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each mechanism (7)")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    pipelines, defined = {}, {}
    for name, define in {**_HIDE, **_FUSED}.items():
        start = time.perf_counter()
        pipelines[name] = _build(define)
        pipelines[name].run()
        defined[name] = time.perf_counter() - start
    times: dict[str, list[float]] = {name: [] for name in pipelines}
    for turn in range(options.rounds + 1):
        for name, pipe in pipelines.items():
            for _ in range(3):
                pipe.run()
            start = time.perf_counter()
            for _ in range(8):
                pipe.run()
            if turn:  # the first turn warms up
                times[name].append((time.perf_counter() - start) / 8 * 1e3)
    rows = {
        name: {"ms_per_batch": float(np.median(values)), "define_s": defined[name]} for name, values in times.items()
    }
    table = [[name, f"{row['ms_per_batch']:.2f}", f"{row['define_s']:.2f}"] for name, row in rows.items()]
    Terminal(options.quiet).table(
        f"DALI mechanisms, batch {BATCH}, {available_cores()} threads",
        ["mechanism", "ms per batch", "define + first batch, s"],
        table,
    )
    if options.json is not None:
        write_json(options.json, {"rounds": options.rounds, "threads": available_cores(), "rows": rows})
    return 0


def _build(define: Callable[[], Any]) -> Any:
    from nvidia.dali import pipeline_def

    # Depth 1: the time of a batch is the time of its operators, not that of a queue.
    @pipeline_def(batch_size=BATCH, num_threads=available_cores(), device_id=None, prefetch_queue_depth=1)
    def pipeline():  # type: ignore[no-untyped-def]
        return define()

    pipe = pipeline()
    pipe.build()
    return pipe


def _images(side: tuple[int, int]) -> Any:
    from nvidia.dali import fn

    batch = list(np.random.default_rng(0).integers(0, 256, (BATCH, *side, 3), dtype=np.uint8))
    return fn.copy(fn.external_source(lambda: batch, batch=True, layout="HWC", no_copy=True))


def _ids() -> Any:
    from nvidia.dali import fn

    ids = np.arange(BATCH, dtype=np.int64)
    return fn.external_source(lambda: ids, batch=True)


def _policy() -> HideAndSeek:
    return HideAndSeek((16,))


def _hide_operator(inplace: bool) -> Any:
    import has_dali.fn as hfn

    return hfn.hide_and_seek(_images((224, 224)), _policy(), _ids(), 0, fill_value=124, inplace=inplace)


def _hide_python_function() -> Any:
    from nvidia.dali import fn

    from has_dali.kernels import cpu

    def hide(images: list[np.ndarray], ids: list[np.ndarray]) -> list[np.ndarray]:
        batch = np.stack(images)
        return list(cpu.hide(batch, _policy(), np.array(ids), 0, 124, "NHWC", batch))

    return fn.python_function(
        _images((224, 224)), _ids(), function=hide, batch_processing=True, output_layouts="HWC", device="cpu"
    )


def _hide_numba_function() -> Any:
    from nvidia.dali import fn, types
    from nvidia.dali.plugin.numba.fn import numba_function

    def run(out, image, coins):  # type: ignore[no-untyped-def]
        out[:] = image
        for row in range(_CELLS):
            for column in range(_CELLS):
                if coins[row * _CELLS + column]:
                    out[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = 124

    def setup(outs, ins):  # type: ignore[no-untyped-def]
        for n in range(len(outs[0])):
            for axis in range(3):
                outs[0][n][axis] = ins[0][n][axis]

    coins = fn.random.coin_flip(shape=[_CELLS * _CELLS], dtype=types.UINT8)
    return numba_function(
        _images((224, 224)), coins, run_fn=run, setup_fn=setup, out_types=[types.UINT8],
        in_types=[types.UINT8, types.UINT8], outs_ndim=[3], ins_ndim=[3, 1], device="cpu",
    )  # fmt: skip


def _hide_erase() -> Any:
    from nvidia.dali import fn, types

    grid = np.stack(np.meshgrid(np.arange(_CELLS), np.arange(_CELLS), indexing="ij"), -1).reshape(-1, 2) * 16
    coins = fn.random.coin_flip(shape=[_CELLS * _CELLS, 1], dtype=types.UINT8)
    anchor = fn.reshape(types.Constant(grid.astype(np.float32)) + (1 - coins) * 1e6, shape=[-1])
    shape = np.full(2 * _CELLS * _CELLS, 16, np.float32)
    return fn.erase(_images((224, 224)), anchor=anchor, shape=types.Constant(shape), axis_names="HW", fill_value=124)


def _fused_operator() -> Any:
    import has_dali.fn as hfn

    return hfn.resize_mirror_normalize_hide(_images((300, 400)), _policy(), _ids(), 0)


def _fused_python_function() -> Any:
    from nvidia.dali import fn

    from has_dali.kernels import cpu

    def fused(images: list[np.ndarray], ids: list[np.ndarray]) -> list[np.ndarray]:
        return cpu.resize_mirror_normalize_hide(images, _policy(), np.array(ids), 0)

    return fn.python_function(
        _images((300, 400)), _ids(), function=fused, batch_processing=True, output_layouts="CHW", device="cpu"
    )


def _fused_stock() -> Any:
    from nvidia.dali import fn, types

    resized = fn.resize(_images((300, 400)), size=[224, 224], interp_type=types.INTERP_LINEAR)
    return fn.crop_mirror_normalize(resized, mean=[123.7] * 3, std=[58.4] * 3, output_layout="CHW")


_HIDE: dict[str, Callable[[], Any]] = {
    "base: copy 224 x 224": lambda: _images((224, 224)),
    "hide: whole-batch operator, in place": lambda: _hide_operator(True),
    "hide: whole-batch operator, out of place": lambda: _hide_operator(False),
    "hide: python_function": _hide_python_function,
    "hide: numba_function": _hide_numba_function,
    "hide: fn.erase": _hide_erase,
}
_FUSED: dict[str, Callable[[], Any]] = {
    "base: copy 300 x 400": lambda: _images((300, 400)),
    "fused: per-sample operator": _fused_operator,
    "fused: python_function": _fused_python_function,
    "DALI's resize + normalise, no hiding": _fused_stock,
}


if __name__ == "__main__":
    sys.exit(run_guarded("has_dali.bench.dali_mechanisms", lambda: main(sys.argv[1:])))
