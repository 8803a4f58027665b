"""Scope ``scale``: how images per second and memory change with threads, batch, image and patch size."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from has_dali.bench import timing
from has_dali.bench.harness import Contender, Unavailable, measure_table, silent
from has_dali.bench.peers import op_has_dali
from has_dali.bench.peers.loader_all import DALI, DALI_ERASE, LOADERS, OURS
from has_dali.bench.peers.loader_data import image_files
from has_dali.bench.peers.loader_first_batch import job_file
from has_dali.bench.peers.loader_job import BATCH_SIZE, Job, job_for, warm_page_cache
from has_dali.bench.peers.loader_memory import peak_growth
from has_dali.bench.peers.loader_turns import contender
from has_dali.bench.peers.op_job import FUSED, Buffers, OpJob, buffers_for
from has_dali.bench.results import Result, Row, Table
from has_dali.bench.same_job import Judge
from has_dali.bench.scope_options import count, counts, known
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores

NAME = "scale"
THREADS, BATCH, SIZE, PATCH, PREFETCH = "threads", "batch_size", "size", "patch_size", "prefetch"
CONDITIONS = (
    "one figure varies, the others stay; page cache warm; points measured in turns, median of the rounds; the operator"
    " works on decoded batches in memory, as many in turn as exceed the last-level cache four times; memory is the peak"
    " growth of the anonymous memory over 16 batches, mapped files left out, in a process of its own"
)
_WINDOW = timing.Window(seconds=0.3, batches=4, discarded=4)
_OP_WINDOW = timing.Window(seconds=0.1, batches=2, discarded=1, warm_up_seconds=0.1)
_OP_LABEL = "has_dali, operator: normalise and hide"


@dataclass(frozen=True)
class Sweep:
    """What a run measures: values by axis."""

    values: Mapping[str, Sequence[int]]
    memory: Mapping[str, Sequence[int]]
    rounds: int

    def points(self) -> int:
        """How often a run advances."""
        measured = 3 * sum(map(len, self.values.values())) * (self.rounds + 1)
        return measured + 2 * sum(map(len, self.memory.values()))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this scope."""
    parser.add_argument("data", nargs="?", metavar="DATA", help="one folder of images per class (an embedded corpus)")
    parser.add_argument("--rounds", metavar="N", help="turns of each point (3; quick: 1)")
    parser.add_argument("--sweeps", metavar="NAME,NAME", help="some of threads,batch,size,patch,memory")
    parser.add_argument("--threads", metavar="N,N", help="numbers of threads (powers of 2 up to the cores)")
    parser.add_argument("--batches", metavar="N,N", help="images per batch (16,64,256; quick: 16,64)")
    parser.add_argument("--sizes", metavar="N,N", help="height and width of the images (112,224,320; quick: 112,224)")
    parser.add_argument("--patches", metavar="N,N", help="patch sizes (8,16,32,56,112; quick: 8,56)")
    parser.add_argument("--prefetch", metavar="N,N", help="batches ahead, for memory (1,2,4; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="fewer points")


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Measure all sweeps.

    Raises:
        ValueError: an option is out of range.
        OSError: the data are missing.
    """
    sweep, quick = sweep_of(options), options.quick
    source, data = image_files(options.data, terminal)
    job = job_for(source, HideAndSeek(), available_cores(), BATCH_SIZE)
    warm_page_cache(job)
    settings: dict[str, Any] = {"rounds": sweep.rounds, "threads": job.threads, "batch_size": job.batch_size}
    settings |= {"size": job.size, "policy": job.policy.to_dict(), "quick": quick}
    settings |= {"sweeps": dict(sweep.values), "memory": dict(sweep.memory)}
    result = Result(NAME, "Scaling", CONDITIONS, settings, data)
    with terminal.progress("measuring sweeps", sweep.points()) as advance:
        for axis, values in sweep.values.items():
            result.tables.append(loader_sweep(job, axis, values, sweep.rounds, _WINDOW, advance))
            result.tables.append(operator_sweep(job, axis, values, sweep.rounds, _OP_WINDOW, advance))
        for axis, values in sweep.memory.items():
            result.tables.append(memory_sweep(job, axis, values, advance))
    return result


def sweep_of(options: argparse.Namespace) -> Sweep:
    """The points that the options ask for.

    Raises:
        ValueError: one is out of range.
    """
    quick = options.quick
    names = {"threads": THREADS, "batch": BATCH, "size": SIZE, "patch": PATCH}
    chosen = known("--sweeps", options.sweeps, [*names, "memory"])
    batches = counts("--batches", options.batches, (16, 64) if quick else (16, 64, 256))
    values = {
        THREADS: counts("--threads", options.threads, powers(available_cores())),
        BATCH: batches,
        SIZE: counts("--sizes", options.sizes, (112, 224) if quick else (112, 224, 320)),
        PATCH: counts("--patches", options.patches, (8, 56) if quick else (8, 16, 32, 56, 112)),
    }
    memory = {PREFETCH: counts("--prefetch", options.prefetch, (2,) if quick else (1, 2, 4)), BATCH: batches}
    return Sweep(
        {axis: values[axis] for name, axis in names.items() if name in chosen},
        memory if "memory" in chosen else {},
        count("--rounds", options.rounds, 1 if quick else 3),
    )


def powers(most: int) -> list[int]:
    """1, 2, 4, ... and ``most``."""
    return sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})


def changed(job: Job, axis: str, value: int) -> Job:
    """``job`` with another value on one axis."""
    if axis == PATCH:
        return replace(job, policy=job.policy.with_(patch_sizes=(value,)))
    changes: dict[str, Any] = {axis: value}
    return replace(job, **changes)


def loader_sweep(
    job: Job,
    axis: str,
    values: Sequence[int],
    rounds: int,
    window: timing.Window = _WINDOW,
    advance: Callable[..., None] = silent,
) -> Table:
    """Our loader and DALI's own operators; over patch sizes with a box per cell, which is what the size changes."""
    other = DALI_ERASE if axis == PATCH else DALI
    jobs = {value: changed(job, axis, value) for value in values}
    # Both loaders of a point have one judge, which compares their pixels as well.
    judges = {value: Judge(one.policy, one.batch_size, one.size) for value, one in jobs.items()}
    points = [
        _point(contender(LOADERS[key], jobs[value], judges[value]), axis, value, LOADERS[key].label)
        for key in (OURS, other)
        for value in values
    ]
    return _measured("Loader", "images/s", points, axis, job, rounds, window, advance)


def operator_sweep(
    job: Job,
    axis: str,
    values: Sequence[int],
    rounds: int,
    window: timing.Window = _OP_WINDOW,
    advance: Callable[..., None] = silent,
) -> Table:
    """The fused operator alone."""
    shared: dict[tuple[int, int], Buffers] = {}  # points on the same batches rotate the same memory
    points = [_point(_operator(changed(job, axis, value), shared), axis, value, _OP_LABEL) for value in values]
    return _measured("Operator", "decoded images/s", points, axis, job, rounds, window, advance)


def memory_sweep(job: Job, axis: str, values: Sequence[int], advance: Callable[..., None]) -> Table:
    """Peak growth of our loader and of DALI's own operators."""
    keys = (OURS, DALI)
    table = Table(f"memory-{axis}", f"Memory over {_name(axis)}", "MiB", "lower", f"{OURS}-{values[0]}")
    table.parameters = _parameters(job, axis)
    for key, value in ((key, value) for key in keys for value in values):
        label = LOADERS[key].label
        row = Row(f"{key}-{value}", f"{label}, {_name(axis)} {value}", LOADERS[key].kind)
        row.extra = {"x": value, "series": label}
        try:
            with job_file(changed(job, axis, value)) as path:
                row.value = timing.Summary((peak_growth(key, path),))
        except (Unavailable, RuntimeError) as error:
            row.status, row.reason = "skipped" if isinstance(error, Unavailable) else "void", str(error)
        table.rows.append(row)
        advance(note=row.label)
    table.fill_ratios()
    return table


def _operator(job: Job, shared: dict[tuple[int, int], Buffers]) -> Contender:
    work = OpJob(FUSED, job.policy, "uint8", job.batch_size, job.size, job.threads)
    buffers = shared.setdefault((work.batch, work.size), buffers_for(work))
    return op_has_dali.contenders(work, buffers)[0]


def _point(one: Contender, axis: str, value: int, series: str) -> Contender:
    extra = {**one.extra, "x": value, "series": series}
    return replace(one, key=f"{one.key}-{value}", label=f"{series}, {_name(axis)} {value}", extra=extra)


def _measured(
    what: str,
    unit: str,
    points: Sequence[Contender],
    axis: str,
    job: Job,
    rounds: int,
    window: timing.Window,
    advance: Callable[..., None],
) -> Table:
    return measure_table(
        f"{what.lower()}-{axis}",
        f"{what} over {_name(axis)}",
        points,
        baseline=points[0].key,
        unit=unit,
        rounds=rounds,
        window=window,
        parameters=_parameters(job, axis),
        advance=advance,
    )


def _parameters(job: Job, axis: str) -> dict[str, Any]:
    fixed: dict[str, Any] = {THREADS: job.threads, BATCH: job.batch_size, SIZE: job.size}
    fixed |= {PATCH: list(job.policy.patch_sizes), PREFETCH: job.prefetch}
    return {"x": axis, **{name: value for name, value in fixed.items() if name != axis}}


def _name(axis: str) -> str:
    return axis.replace("_", " ")
