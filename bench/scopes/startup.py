"""Scope ``startup``: from a fresh interpreter to the first batch, with kernels in the cache and without."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from has_dali.bench.peers.loader_all import DALI, FFCV, LOADERS, OURS, SPDL, TENSORS, TIMM, TORCHVISION
from has_dali.bench.peers.loader_data import image_files
from has_dali.bench.peers.loader_first_batch import (
    BUILD,
    FIRST_BATCH,
    INTERPRETER,
    PACKAGE,
    PIPELINES,
    STAGES,
    Start,
    job_file,
    start,
)
from has_dali.bench.peers.loader_job import BATCH_SIZE, job_for, warm_page_cache
from has_dali.bench.results import RATIO, Bar, Result, Row, Table
from has_dali.bench.scope_options import count, known
from has_dali.bench.timing import Summary, rotated
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores

NAME = "startup"
TOTAL = "total"
PEERS = (DALI, TORCHVISION, TENSORS, TIMM, SPDL)
_ASKED_FOR = (FFCV,)  # compiles for more than ten seconds at every start: measured only when it is named
LABELS = {
    INTERPRETER: "Python itself",
    PACKAGE: "import has_dali",
    PIPELINES: "from has_dali.pipelines import image_loader (with torch)",
    BUILD: "build the loader (with DALI)",
    FIRST_BATCH: "first batch",
    TOTAL: "start of the process to first batch",
}
CONDITIONS = (
    "every start in a process of its own; files and libraries in the page cache, byte code compiled; loaders in turns,"
    " their own imports included; median of the starts. A ratio in the tables of stages is a stage's share of the total"
)
_MOST_SECONDS, _AIM_SECONDS = 3.0, 1.0


class Gap(NamedTuple):
    """Why a loader has no figure."""

    status: str
    """"skipped": it cannot run here; "void": it failed."""
    reason: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this scope."""
    parser.add_argument("data", nargs="?", metavar="DATA", help="one folder of images per class (an embedded corpus)")
    parser.add_argument("--rounds", metavar="N", help="starts of each loader (5; quick: 2)")
    parser.add_argument("--cold-rounds", metavar="N", help="starts without compiled kernels (2; quick: 1)")
    parser.add_argument("--batch", default=str(BATCH_SIZE), metavar="N", help=f"images per batch ({BATCH_SIZE})")
    parser.add_argument("--size", default="224", metavar="N", help="height and width of the images (224)")
    parser.add_argument(
        "--peers", metavar="KEY,KEY", help=f"who starts beside has_dali ({','.join(PEERS)}); also {FFCV}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer starts")


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Start everything again and again.

    Raises:
        ValueError: an option is out of range or names no peer.
        OSError: the data are missing.
        RuntimeError: our loader does not start.
    """
    rounds = count("--rounds", options.rounds, 2 if options.quick else 5)
    cold_rounds = count("--cold-rounds", options.cold_rounds, 1 if options.quick else 2)
    batch_size, size = count("--batch", options.batch, BATCH_SIZE), count("--size", options.size, 224)
    keys = [OURS, *(key for key in _chosen(options.peers) if key != OURS)]
    source, data = image_files(options.data, terminal)
    job = job_for(source, HideAndSeek(), available_cores(), batch_size, size)
    warm_page_cache(job)
    total = cold_rounds + len(keys) * (rounds + 1)
    with job_file(job) as path, terminal.progress("starting loaders", total) as advance:
        cold = cold_starts(path, cold_rounds, advance)
        starts, reasons = warm_starts(path, keys, rounds, advance)
    parameters = {"batch_size": batch_size, "size": size, "threads": job.threads}
    tables = [
        stage_table("cached", "has_dali, kernels cached", starts[OURS], parameters),
        stage_table("compiled", "has_dali, kernels compiled at start", cold, parameters),
        loader_table(keys, starts, reasons, parameters),
    ]
    bar = Bar(
        "seconds from the start of the process to the first batch, kernels cached",
        Summary(tuple(one.total for one in starts[OURS])),
        at_most=_MOST_SECONDS,
        aim=_AIM_SECONDS,
        note=_share_of_torch(tables[0]),
    )
    settings = {"rounds": rounds, "cold_rounds": cold_rounds, **parameters, "peers": keys, "quick": options.quick}
    return Result(NAME, "Seconds to the first batch", CONDITIONS, settings, data, tables, [bar])


def _chosen(peers: str | None) -> list[str]:
    """Keys of the loaders that start; FFCV only if it is asked for."""
    return list(PEERS) if peers is None else known("--peers", peers, [OURS, *PEERS, *_ASKED_FOR])


def cold_starts(job: Path, rounds: int, advance: Callable[..., None]) -> list[Start]:
    """Starts of our loader with an empty folder of compiled kernels each."""
    starts = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="has_dali_bench_") as empty:
            starts.append(start(OURS, job, Path(empty)))
        advance(note=LABELS[BUILD])
    return starts


def warm_starts(
    job: Path, keys: Sequence[str], rounds: int, advance: Callable[..., None]
) -> tuple[dict[str, list[Start]], dict[str, Gap]]:
    """Starts of all loaders in turns, after one that fills the caches; and why some do not start."""
    starts: dict[str, list[Start]] = {key: [] for key in keys}
    reasons: dict[str, Gap] = {}
    with tempfile.TemporaryDirectory(prefix="has_dali_bench_") as folder:
        cache = Path(folder)
        for key in keys:
            _started(key, job, cache, reasons)
            advance(note=LOADERS[key].label)
        running = [key for key in keys if key not in reasons]
        for turn in range(rounds):
            for key in rotated(running, turn):
                found = None if key in reasons else _started(key, job, cache, reasons)
                starts[key] += [] if found is None else [found]
                advance(note=LOADERS[key].label)
    return starts, reasons


def _started(key: str, job: Path, cache: Path, reasons: dict[str, Gap]) -> Start | None:
    """One start; else None and an entry in ``reasons``. Without ours there is nothing to compare, so that raises."""
    try:
        found = start(key, job, cache)
    except RuntimeError as error:
        if key == OURS:
            raise
        reasons[key] = Gap("void", str(error))
        return None
    if found.reason is None:
        return found
    if key == OURS:
        raise RuntimeError(f"{key} did not start: {found.reason}")
    reasons[key] = Gap("skipped", found.reason)
    return None


def stage_table(key: str, title: str, starts: Sequence[Start], parameters: Mapping[str, Any]) -> Table:
    """What the stages take; the total is the baseline."""
    table = Table(key, title, "s", "lower", TOTAL, {**parameters, RATIO: "share of the total"})
    for stage in STAGES:
        table.rows.append(Row(stage, LABELS[stage], "bound" if stage == INTERPRETER else "ours"))
        table.rows[-1].value = Summary(tuple(one.stages[stage] for one in starts))
    table.rows.append(Row(TOTAL, LABELS[TOTAL], "ours", value=Summary(tuple(one.total for one in starts))))
    table.fill_ratios()
    return table


def loader_table(
    keys: Sequence[str], starts: dict[str, list[Start]], reasons: dict[str, Gap], parameters: Mapping[str, Any]
) -> Table:
    """Totals of all loaders."""
    table = Table("loaders", "Start of the process to first batch", "s", "lower", OURS, dict(parameters))
    for key in keys:
        row = Row(key, LOADERS[key].label, LOADERS[key].kind)
        if key in reasons:
            row.status, row.reason = reasons[key]
        else:
            row.value = Summary(tuple(one.total for one in starts[key]))
        table.rows.append(row)
    table.fill_ratios()
    return table


def _share_of_torch(table: Table) -> str:
    row = table.row(PIPELINES)
    return "" if row is None or row.value is None else f"{row.value.median:.1f} s of it load torch and the pipelines"
