"""Scope ``op``: hide, and hide fused with normalisation, on a decoded batch in memory; no files, no decoding."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from has_dali.bench import timing
from has_dali.bench.harness import measure_table, silent
from has_dali.bench.op_figures import add_roofline, bars
from has_dali.bench.peers import op_has_dali
from has_dali.bench.peers.op_all import PEERS, contenders
from has_dali.bench.peers.op_has_dali import OURS
from has_dali.bench.peers.op_job import FUSED, HIDE, Buffers, OpJob, buffers_for, last_level_cache
from has_dali.bench.results import Result, Table
from has_dali.bench.scope_options import count, counts, known
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores

NAME = "op"
MIXED = (16, 32, 44, 56)
_SIZES, _QUICK_SIZES = ("8", "16", "32", "56", "mixed"), ("8", "mixed")
_SWEPT = ("8", "16", "32", "56")
_KINDS = ((HIDE, "uint8"), (HIDE, "float32"), (FUSED, "uint8"))
_CHECKED_STEPS = 2
_WINDOW = timing.Window(seconds=0.03, batches=1, discarded=1, stride=1, warm_up_seconds=0.05)
_QUICK_WINDOW = timing.Window(seconds=0.015, batches=1, discarded=1, stride=1, warm_up_seconds=0.02)
_SWEEP_TURNS = 2  # ours alone: cheap, and the ratio of two sizes is finer than that of two libraries


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this scope."""
    parser.add_argument("--rounds", metavar="N", help="turns of each contender (5; quick: 3)")
    parser.add_argument("--threads", metavar="N", help="cores for everyone (1: loops in Python use no more)")
    parser.add_argument(
        "--batch", metavar="N,N", help="images per batch; all but the first with the last S only (64,256)"
    )
    parser.add_argument("--size", metavar="N", help="height and width of the images (224)")
    parser.add_argument("--patches", metavar="S,S", help=f"patch sizes ({','.join(_SIZES)}; mixed: 16 to 56)")
    parser.add_argument("--peers", metavar="KEY,KEY", help=f"who is measured beside has_dali: {', '.join(PEERS)}")
    parser.add_argument("--full", action="store_true", help="every batch size with every patch size")
    parser.add_argument("--quick", action="store_true", help="fewer tables, fewer and shorter turns")


@dataclass(frozen=True)
class Plan:
    """What a run measures."""

    jobs: tuple[OpJob, ...]
    """One table each; jobs that share batches in memory follow one another."""
    sweeps: tuple[tuple[OpJob, ...], ...]
    """Ours alone over single patch sizes, ascending."""


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Measure all tables.

    Raises:
        ValueError: an option is out of range or names no peer.
    """
    rounds = count("--rounds", options.rounds, 3 if options.quick else 5)
    threads, cores = count("--threads", options.threads, 1), available_cores()
    if threads > cores:
        raise ValueError(f"--threads {threads}: expected at most {cores}, the cores of this process")
    size = count("--size", options.size, 224, least=16)
    batches = counts("--batch", options.batch, (64,) if options.quick else (64, 256))
    patches = known_patches(options.patches, _QUICK_SIZES if options.quick else _SIZES)
    peers = known("--peers", options.peers, PEERS)
    swept = [patch for patch in (_SWEPT if options.patches is None else patches) if patch != "mixed"]
    plan = make_plan(patches, swept, batches, size, threads, options.full)
    window = _QUICK_WINDOW if options.quick else _WINDOW
    settings = {
        "rounds": rounds,
        "threads": threads,
        "batches": batches,
        "size": size,
        "patches": patches,
        "p_hide": 0.5,
        "peers": [peer for peer in PEERS if peer in peers],
        "full": options.full,
        "quick": options.quick,
    }
    result = Result(NAME, "Operators on a decoded batch", conditions(threads), settings)
    with on_cores(threads), terminal.progress("measuring operators", _steps(plan, peers, rounds)) as advance:
        for key, jobs in groupby(plan.jobs, lambda job: (job.kind, job.dtype, job.batch)):
            buffers: Buffers | None = None
            for job in jobs:
                buffers = buffers or buffers_for(job)
                result.tables.append(measure(job, buffers, peers, rounds, window, advance))
            for sweep in plan.sweeps:
                if (sweep[0].kind, sweep[0].dtype, sweep[0].batch) == key and buffers is not None:
                    result.tables.append(measure_sweep(sweep, buffers, _SWEEP_TURNS * rounds, window, advance))
    result.bars = bars(result.tables)
    return result


def conditions(threads: int) -> str:
    """How it is measured, in words."""
    cache = last_level_cache()
    size = "of unknown size" if cache is None else f"of {cache / 2**20:.0f} MiB"
    cores = "one core" if threads == 1 else f"{threads} cores (loops in Python use one)"
    return (
        f"{cores}, to which the process is bound; batches are decoded already and lie in CPU memory, each in the layout"
        " that its peer works best in; buffers are rotated: together they hold four times the last-level cache"
        f" ({size}); fused results go to memory that is used again, where a row does not say otherwise and its library"
        " can be told so; contenders measured in turns, median of the rounds; p_hide 0.5; bytes moved are those that"
        " the form of the operation must read or write, without lines that are fetched only to be written"
    )


def known_patches(text: str | None, default: Sequence[str]) -> list[str]:
    """Patch sizes, single ones ascending, "mixed" last.

    Raises:
        ValueError: one is neither "mixed" nor a whole number from 1.
    """
    names = set(default if text is None else text.split(","))
    single = counts("--patches", ",".join(names - {"mixed"}), ()) if names - {"mixed"} else []
    return [*map(str, single), *(["mixed"] if "mixed" in names else [])]


def make_plan(
    patches: Sequence[str], swept: Sequence[str], batches: Sequence[int], size: int, threads: int, full: bool
) -> Plan:
    """All patch sizes with the first batch size; with the others too where ``full``, else the last of them only."""
    jobs, sweeps = [], []
    for kind, dtype in _KINDS:
        for batch in batches:
            chosen = patches if full or batch == batches[0] else patches[-1:]
            jobs += [OpJob(kind, policy_of(patch), dtype, batch, size, threads) for patch in chosen]
        if len(swept) > 1:
            sweeps.append(tuple(OpJob(kind, policy_of(patch), dtype, batches[0], size, threads) for patch in swept))
    return Plan(tuple(jobs), tuple(sweeps))


def policy_of(patch: str) -> HideAndSeek:
    """Half of the cells of every image are hidden; "mixed" draws the size of each image."""
    return HideAndSeek(MIXED if patch == "mixed" else (int(patch),), p_hide=0.5)


def patch_name(job: OpJob) -> str:
    """What ``policy_of`` was given."""
    return "mixed" if len(job.policy.patch_sizes) > 1 else str(job.policy.patch_sizes[0])


def _steps(plan: Plan, peers: Sequence[str], rounds: int) -> int:
    steps = sum((rounds + 1) * len(contenders(job, _no_buffers(job), peers)) for job in plan.jobs)
    return steps + sum((_SWEEP_TURNS * rounds + 1) * len(sweep) for sweep in plan.sweeps)


def _no_buffers(job: OpJob) -> Buffers:
    return Buffers(job.dtype, job.batch, job.size, 0)


def measure(
    job: OpJob,
    buffers: Buffers,
    peers: Sequence[str] = PEERS,
    rounds: int = 5,
    window: timing.Window = _WINDOW,
    advance: Callable[..., None] = silent,
) -> Table:
    """One table: ours, the bounds and the named peers on one job."""
    table = measure_table(
        f"{job.kind}-{job.dtype}-{job.batch}-{patch_name(job)}",
        f"{_what(job)}, batch {job.batch}, {job.sizes}",
        contenders(job, buffers, peers),
        baseline=OURS,
        rounds=rounds,
        window=window,
        parameters=_parameters(job),
        checked_steps=_CHECKED_STEPS,  # each of a batch that is pristine still: there are more of them
        advance=advance,
    )
    add_roofline(job, table)
    return table


def measure_sweep(
    jobs: Sequence[OpJob],
    buffers: Buffers,
    rounds: int,
    window: timing.Window = _WINDOW,
    advance: Callable[..., None] = silent,
) -> Table:
    """Ours over patch sizes, in turns; the ratio is the cost of a size over that of the largest."""
    rows = []
    for job in jobs:
        size = job.policy.patch_sizes[0]
        ours = op_has_dali.contenders(job, buffers)[0]
        rows.append(replace(ours, key=f"S={size}", label=f"has_dali, S = {size}", extra={**ours.extra, "x": size}))
    job = jobs[-1]
    return measure_table(
        f"{job.kind}-{job.dtype}-{job.batch}-sizes",
        f"{_what(job)}, batch {job.batch}, over patch sizes",
        rows,
        baseline=rows[-1].key,
        rounds=rounds,
        window=window,
        parameters={**_parameters(job), "policy": None, "x": "patch size"},
        checked_steps=_CHECKED_STEPS,  # each of a batch that is pristine still: there are more of them
        advance=advance,
    )


def _what(job: OpJob) -> str:
    return "hide and normalise, uint8 HWC to float32 CHW" if job.kind == FUSED else f"hide, {job.dtype}"


def _parameters(job: OpJob) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "dtype": job.dtype,
        "batch_size": job.batch,
        "size": job.size,
        "threads": job.threads,
        "policy": job.policy.to_dict(),
    }


@contextlib.contextmanager
def on_cores(threads: int) -> Iterator[None]:
    """Bind this thread, and those that start meanwhile, to some cores, and torch's own pool to as many threads."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    torch_threads = torch.get_num_threads() if torch else 0
    random.seed(0)
    try:
        if cores is not None:
            os.sched_setaffinity(0, sorted(cores)[-threads:])  # the first one serves most interrupts
        if torch:
            torch.manual_seed(0)
            torch.set_num_threads(threads)
        yield
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        if torch:
            torch.set_num_threads(torch_threads)
