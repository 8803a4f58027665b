"""Scope ``kernel``: the CUDA kernels alone, on batches in device memory, by events on the stream; needs a GPU."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from has_dali.bench import timing
from has_dali.bench.cuda_timing import HOLD_SECONDS, CupyStream, Stream, Turn, turn
from has_dali.bench.harness import Contender, Step, in_words, opened, silent
from has_dali.bench.op_figures import add_roofline, copy_share
from has_dali.bench.peers.kernel_cuda import COPY, OURS, PEERS, ROTATED_BYTES, contenders, device_buffers
from has_dali.bench.peers.op_job import FUSED, HIDE, Buffers, OpJob
from has_dali.bench.results import Bar, Result, Row, Table
from has_dali.bench.scope_options import count, counts, known
from has_dali.bench.scopes.op import known_patches, patch_name, policy_of
from has_dali.bench.timing import Summary
from has_dali.console import Terminal
from has_dali.kernels import gpu

NAME = "kernel"
_SIZES, _QUICK_SIZES = ("8", "16", "32", "56", "mixed"), ("mixed",)
_CHECKED_STEPS = 2
_SHARE = "share of the device's copy bandwidth"
CONDITIONS = (
    "batches in device memory; device time by events on the default stream, all calls queued before the device begins"
    f" (where the host needs more than {HOLD_SECONDS * 1000:.0f} ms for that, the note says so); host time is that of"
    f" the calls, nothing waited for; buffers are rotated, at least {ROTATED_BYTES >> 20} MiB of them, so that none is"
    " warm in the L2; contenders measured in turns, median of the rounds; p_hide 0.5"
)
# Kind, type and layout in memory of the batch; of the fused kernel: of what it makes of NHWC bytes.
SPECIALISATIONS = (
    (HIDE, "uint8", "NHWC"),
    (HIDE, "uint8", "NCHW"),
    (HIDE, "float16", "NCHW"),
    (HIDE, "float32", "NCHW"),
    (FUSED, "float16", "NHWC"),
    (FUSED, "float16", "NCHW"),
    (FUSED, "float32", "NHWC"),
    (FUSED, "float32", "NCHW"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this scope."""
    parser.add_argument("--rounds", metavar="N", help="turns of each contender (7; quick: 3)")
    parser.add_argument("--calls", metavar="N", help="calls of a turn (50)")
    parser.add_argument("--batch", metavar="N,N", help="images per batch (256)")
    parser.add_argument("--size", metavar="N", help="height and width of the images (224)")
    parser.add_argument("--patches", metavar="S,S", help=f"patch sizes ({','.join(_SIZES)}; mixed: 16 to 56)")
    parser.add_argument("--peers", metavar="KEY,KEY", help=f"who is measured beside has_dali: {', '.join(PEERS)}")
    parser.add_argument("--quick", action="store_true", help="mixed patch sizes only, fewer turns")


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Measure all specialisations; without a GPU, say why not.

    Raises:
        ValueError: an option is out of range or names no peer.
    """
    rounds = count("--rounds", options.rounds, 3 if options.quick else 7)
    calls = count("--calls", options.calls, 50)
    batches, size = counts("--batch", options.batch, (256,)), count("--size", options.size, 224, least=16)
    patches = known_patches(options.patches, _QUICK_SIZES if options.quick else _SIZES)
    peers = known("--peers", options.peers, PEERS)
    settings = {
        "rounds": rounds,
        "calls": calls,
        "batches": batches,
        "size": size,
        "patches": patches,
        "p_hide": 0.5,
        "peers": [peer for peer in PEERS if peer in peers],
        "quick": options.quick,
    }
    result = Result(NAME, "CUDA kernels", CONDITIONS, settings)
    reason = gpu.unavailable_reason()
    if reason is not None:
        reason = f"no CUDA device: {reason}"
        result.tables = [skipped_table(peers, batches[0], size, reason)]
        result.bars = [Bar(_SHARE, None, at_least=0.7, aim=0.9, note=reason)]
        return result
    swept = len(patches) > 1
    stream, steps = CupyStream(), (len(peers) + 2 + swept) * len(patches) * (rounds + 1)
    with terminal.progress("measuring kernels", len(SPECIALISATIONS) * len(batches) * steps) as advance:
        for kind, dtype, layout in SPECIALISATIONS:
            for batch in batches:
                jobs = [_job(kind, dtype, patch, batch, size) for patch in patches]
                for job in jobs:
                    table = empty_table(job, layout)
                    measure(table, contenders(job, device_buffers(job), layout, peers), stream, rounds, calls, advance)
                    add_roofline(job, table)
                    result.tables.append(table)
                if swept:
                    table = empty_sweep(jobs, layout)
                    measure(table, sweep_contenders(jobs, layout), stream, rounds, calls, advance)
                    result.tables.append(table)
    result.bars = bars(result.tables)
    return result


def _job(kind: str, dtype: str, patch: str, batch: int, size: int) -> OpJob:
    if kind == FUSED:
        return OpJob(kind, policy_of(patch), "uint8", batch, size, output_dtype=dtype)
    return OpJob(kind, policy_of(patch), dtype, batch, size)


def empty_table(job: OpJob, layout: str) -> Table:
    """The table of one job, without rows."""
    fused = job.kind == FUSED
    what = f"hide and normalise, uint8 NHWC to {job.output_dtype} {layout}" if fused else f"hide, {job.dtype} {layout}"
    dtype = job.output_dtype if fused else job.dtype
    parameters: dict[str, Any] = {
        "kind": job.kind,
        "dtype": dtype,
        "layout": layout,
        "batch_size": job.batch,
        "size": job.size,
        "policy": job.policy.to_dict(),
    }
    key = f"{job.kind}-{dtype}-{layout.lower()}-{job.batch}-{patch_name(job)}"
    return Table(key, f"{what}, batch {job.batch}, {job.sizes}", "images/s", "higher", OURS, parameters)


def empty_sweep(jobs: Sequence[OpJob], layout: str) -> Table:
    """The table of ours over the patch sizes of ``jobs``, without rows; ratios are to the last."""
    one = empty_table(jobs[-1], layout)
    key = one.key.removesuffix(patch_name(jobs[-1])) + "sizes"
    title = one.title.removesuffix(jobs[-1].sizes) + "over patch sizes"
    parameters = {**one.parameters, "policy": None}
    return Table(key, title, one.unit, one.better, f"S={patch_name(jobs[-1])}", parameters)


def sweep_contenders(jobs: Sequence[OpJob], layout: str) -> list[Contender]:
    """Ours, once for every patch size."""
    found = []
    for job in jobs:
        ours = contenders(job, device_buffers(job), layout, ())[0]
        found.append(replace(ours, key=f"S={patch_name(job)}", label=f"has_dali, {job.sizes}"))
    return found


def skipped_table(peers: Sequence[str], batch: int, size: int, reason: str) -> Table:
    """One table in place of all, every row of it skipped."""
    kind, dtype, layout = SPECIALISATIONS[0]
    job = _job(kind, dtype, "mixed", batch, size)
    everyone = contenders(job, Buffers(job.dtype, job.batch, job.size, 0), layout, peers)
    rows = [Row(one.key, one.label, one.kind, "skipped", reason, extra=dict(one.extra)) for one in everyone]
    return Table("kernel", "all kernels", "images/s", "higher", OURS, {"batch_size": batch, "size": size}, rows)


def measure(
    table: Table,
    everyone: Sequence[Contender],
    stream: Stream,
    rounds: int,
    calls: int,
    advance: Callable[..., None] = silent,
) -> None:
    """Fill a table: check, warm up, then time in turns; rows gain ``device_us``, ``host_us`` and ``queued_ahead``.

    Raises:
        RuntimeError: the baseline is skipped or void.
    """
    rows = {one.key: Row(one.key, one.label, one.kind, extra=dict(one.extra)) for one in everyone}
    table.rows = list(rows.values())
    turns: dict[str, list[Turn]] = {}
    with ExitStack() as stack:
        steps: dict[str, Step] = {}
        for one in everyone:
            warm_up = partial(_warm_up, stream=stream, calls=calls)
            step = opened(one, rows[one.key], stack, _CHECKED_STEPS, warm_up, stream.wait)
            if step is not None:
                steps[one.key], turns[one.key] = step, []
            elif one.key == table.baseline:
                raise RuntimeError(f"{one.label} cannot be compared with: {rows[one.key].reason}")
            advance(steps=1 if step is not None else rounds + 1, note=one.label)
        for number in range(rounds):
            for name in timing.rotated(list(steps), number):
                try:
                    turns[name].append(turn(stream, steps[name], calls))
                except Exception as error:
                    if rows[name].kind == "ours":
                        raise
                    rows[name].status, rows[name].reason = "void", f"fails in round {number + 1}: {in_words(error)}"
                    del steps[name], turns[name]
                    advance(steps=rounds - number)
                    continue
                advance(note=rows[name].label)
    units = {one.key: one.units for one in everyone}
    for name, measured in turns.items():
        rows[name].value = Summary(tuple(units[name] / one.device for one in measured))
        rows[name].extra |= {
            "device_us": 1e6 * Summary(tuple(one.device for one in measured)).median,
            "host_us": 1e6 * Summary(tuple(one.host for one in measured)).median,
            "queued_ahead": all(one.queued_ahead for one in measured),
        }
    table.fill_ratios()
    table.note = _note(table)


def _warm_up(step: Step, stream: Stream, calls: int) -> None:
    for _ in range(calls):
        step()
    stream.wait()


def _note(table: Table) -> str:
    times = [
        f"{row.label}: {row.extra['device_us']:.1f} us on the device, {row.extra['host_us']:.1f} us on the host"
        + ("" if row.extra["queued_ahead"] else " (the device may have waited for the host)")
        for row in table.rows
        if row.value is not None and row.kind != "bound"
    ]
    return "a call takes: " + "; ".join(times)


def bars(tables: Sequence[Table]) -> list[Bar]:
    """Share of the copy bandwidth, and what small patches cost."""
    found = []
    for table in tables:
        if table.key.endswith("-sizes"):
            cost = table.speed_ratio("S=56", "S=8")
            if cost is not None:
                what = f"{table.title}: cost at S = 8 over cost at S = 56"
                found.append(Bar(what, cost, at_most=1.25, aim=1.05))
            continue
        ours, copy = table.row(OURS), table.row(COPY)
        share = None if ours is None or copy is None else copy_share(ours, copy)
        found.append(Bar(f"{table.title}: {_SHARE}", share, at_least=0.7, aim=0.9))
    return found
