"""Scope ``loader``: image files to normalised training batches, our CPU loader against everything else."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from has_dali.bench import timing
from has_dali.bench.harness import measure_table, silent
from has_dali.bench.peers.loader_all import CEILING, DALI, LOADERS, OURS, PLAIN, TORCHVISION
from has_dali.bench.peers.loader_data import image_files
from has_dali.bench.peers.loader_job import BATCH_SIZE, Job, LoaderPeer, job_for, warm_page_cache
from has_dali.bench.peers.loader_turns import contenders
from has_dali.bench.results import Bar, Result, Table
from has_dali.bench.same_job import Judge
from has_dali.bench.scope_options import count, counts, known
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores

NAME = "loader"
KEY = "loader"
WINDOW = timing.Window(seconds=1.0, batches=8, discarded=6, warm_up_seconds=0.5)
_QUICK_WINDOW = timing.Window(seconds=0.5, batches=4, discarded=4)


@dataclass(frozen=True)
class _Limit:
    what: str
    peer: str
    least: float
    aim: float


LIMITS = (
    _Limit('loader with HaS over the ceiling "decode the crop box and nothing else"', CEILING, 0.85, 0.95),
    _Limit("loader with HaS over DALI's own operators without HaS", DALI, 1.5, 1.8),
    _Limit("loader with HaS over the same loader without", PLAIN, 1.0, 1.1),
    _Limit("loader with HaS over torchvision's DataLoader with Python HaS", TORCHVISION, 4.0, 5.0),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this scope."""
    parser.add_argument("data", nargs="?", metavar="DATA", help="one folder of images per class (an embedded corpus)")
    parser.add_argument("--rounds", metavar="N", help="turns of each loader (6; quick: 2)")
    parser.add_argument("--batch", default=str(BATCH_SIZE), metavar="N", help=f"images per batch ({BATCH_SIZE})")
    parser.add_argument("--size", default="224", metavar="N", help="height and width of the images (224)")
    parser.add_argument(
        "--threads",
        metavar="N,N",
        help="threads or workers to try (cores: half, all, one more, twice; quick: all)",
    )
    parser.add_argument("--peers", metavar="KEY,KEY", help=f"who is measured beside has_dali: {', '.join(LOADERS)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns, no search for thread numbers")


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Measure all loaders on one set of files.

    Raises:
        ValueError: an option is out of range or names no peer.
        OSError: the data are missing.
    """
    rounds = count("--rounds", options.rounds, 2 if options.quick else 6)
    batch_size, size = count("--batch", options.batch, BATCH_SIZE), count("--size", options.size, 224)
    cores = available_cores()
    tried = counts("--threads", options.threads, [cores] if options.quick else thread_counts(cores))
    keys = known("--peers", options.peers, LOADERS)
    peers = [LOADERS[key] for key in LOADERS if key == OURS or key in keys]
    source, data = image_files(options.data, terminal)
    job = job_for(source, HideAndSeek(), cores if cores in tried else tried[-1], batch_size, size)
    window = _QUICK_WINDOW if options.quick else WINDOW
    with terminal.progress("measuring loaders", progress_steps(len(peers), rounds)) as advance:
        table = measure(job, peers, tried, rounds, window, advance)
    settings = {
        "rounds": rounds,
        "batch_size": batch_size,
        "size": size,
        "threads": tried,
        "policy": job.policy.to_dict(),
        "peers": [peer.key for peer in peers],
        "quick": options.quick,
    }
    how = conditions(peers, tried)
    return Result(NAME, "Images per second of the loaders", how, settings, data, [table], bars(table))


def conditions(peers: Sequence[LoaderPeer], tried: Sequence[int]) -> str:
    """How ``peers`` are measured when ``tried`` are the numbers of threads."""
    threads = f"each with {tried[0]} threads or workers"
    if len(tried) > 1:
        threads = f"each with whichever of {', '.join(map(str, tried))} threads or workers suits it best"
    notes = []
    following = [peer.label for peer in peers if peer.threads_of]
    if following and len(tried) > 1:
        notes.append(f"has_dali's number for {' and '.join(following)}")
    at_most = [peer.label for peer in peers if peer.threads(max(tried)) < max(tried)]
    if at_most:
        notes.append(f"at most one per core for {' and '.join(at_most)}")
    threads += f" ({'; '.join(notes)})" if notes else ""
    return (
        f"page cache warm for all; loaders measured in turns, {threads}; median of the rounds; float32 NCHW torch"
        " tensors in CPU memory, random resized crop, antialiased"
    )


def thread_counts(cores: int) -> list[int]:
    """What is tried: half the cores, all, one more to fill the gaps at the ends of batches, and twice as many."""
    return sorted({max(1, cores // 2), cores, cores + 1, 2 * cores})


def progress_steps(peers: int, rounds: int) -> int:
    """How often ``measure`` advances."""
    return peers * (rounds + 2)


def measure(
    job: Job,
    peers: Sequence[LoaderPeer],
    tried: Sequence[int],
    rounds: int,
    window: timing.Window = WINDOW,
    advance: Callable[..., None] = silent,
) -> Table:
    """Find the best number of threads of each loader, then measure all in turns.

    Args:
        peers: ours first.
        tried: numbers of threads or workers.
    """
    warm_page_cache(job)
    judge = Judge(job.policy, job.batch_size, job.size)
    parameters: dict[str, Any] = {"batch_size": job.batch_size, "size": job.size, "policy": job.policy.to_dict()}
    table = measure_table(
        KEY,
        f"JPEG files to batches of {job.batch_size}, {job.size} x {job.size}, on {available_cores()} cores",
        contenders(peers, job, tried, judge, advance),
        baseline=OURS,
        rounds=rounds,
        window=window,
        parameters=parameters,
        advance=advance,
    )
    table.note = _note(table)
    return table


def bars(table: Table) -> list[Bar]:
    """The bars of a table, measured or not."""
    made = []
    for limit in LIMITS:
        row = table.row(limit.peer)
        note = "not among the peers" if row is None else row.reason or ""
        if limit.peer == TORCHVISION:
            note = "; ".join(part for part in (note, table.note) if part)
        made.append(Bar(limit.what, table.speed_ratio(OURS, limit.peer), limit.least, aim=limit.aim, note=note))
    return made


def _note(table: Table) -> str:
    """What no loader with DALI's decoder can exceed, in the unit of the bar that depends on another decoder."""
    headroom = table.speed_ratio(CEILING, TORCHVISION)
    if headroom is None:
        return ""
    return f"the decode ceiling itself is {headroom.median:.1f}x torchvision: no loader with this decoder gets above"
