"""``has-dali bench --suggest DATA``: threads, batch size, prefetch and device for this machine, with the reasons.

Short sweeps of ``image_loader`` on the user's own images, one setting after the other, contenders in turns. Of the
settings that the fastest does not clearly beat, the smallest is recommended: what costs more must give more than noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from has_dali.bench import machine, rendering, timing
from has_dali.bench.harness import silent
from has_dali.bench.results import Result, Table, document
from has_dali.bench.scope_options import count
from has_dali.bench.suggest_sweeps import USUAL_BATCH, Setting, Sweeps, thread_counts
from has_dali.console import Parser, Terminal, check_writable, write_json
from has_dali.kernels.threads import available_cores

_BATCH_SIZES = (32, 64, 128, 256)
_PREFETCHES = (1, 2, 3, 4)
_CONDITIONS = "image_loader with Hide-and-Seek on the given images; settings measured in turns; median of the rounds"


@dataclass(frozen=True)
class Suggestion:
    """What to use, and why."""

    setting: Setting
    images_per_second: float
    batch_mebibytes: float
    reasons: tuple[str, ...]

    def code(self, data: str) -> str:
        """The line of code."""
        one = self.setting
        return (
            f"image_loader({data!r}, {one.batch_size}, train=True, policy=HideAndSeek(), device={one.device!r},"
            f" threads={one.threads}, prefetch={one.prefetch})"
        )


def suggest(
    source: Any,
    size: int = 224,
    rounds: int = 3,
    window: timing.Window | None = None,
    advance: Callable[..., None] = silent,
) -> tuple[Suggestion, list[Table]]:
    """Measure a source and recommend.

    Args:
        source: a source of ``has_dali.pipelines``, with at least one image.
        size: height and width of the images.
        advance: called with ``note=`` what was measured; ``progress_steps`` times.

    Returns:
        What to use, and everything that was measured.
    """
    sweep = Sweeps(source, size, rounds, window or timing.Window(seconds=0.6, batches=4, discarded=4), advance)
    device, device_reason = sweep.device()
    best = Setting(available_cores(), min(USUAL_BATCH, sweep.most), device=device)
    best, threads_reason = sweep.over("threads", thread_counts(available_cores()), best)
    ceiling_reason = sweep.decode_share()
    best, batch_reason = sweep.over("batch_size", [n for n in _BATCH_SIZES if n <= sweep.most] or [sweep.most], best)
    best, prefetch_reason = sweep.over("prefetch", _PREFETCHES, best)
    speed = next(row.value.median for row in sweep.tables[-1].rows if row.extra["x"] == best.prefetch and row.value)
    mebibytes = best.batch_size * 3 * size * size * 4 / 2**20
    alive = best.prefetch + 1
    memory = (
        f"memory: a float32 batch of {best.batch_size} is {mebibytes:.0f} MiB; {alive} of them are alive while one is"
        f" used, {alive * mebibytes:.0f} MiB"
    )
    reasons = (
        device_reason,
        threads_reason,
        ceiling_reason,
        batch_reason,
        prefetch_reason,
        memory,
        sweep.packing(best),
    )
    return Suggestion(best, speed, mebibytes, tuple(reason for reason in reasons if reason)), sweep.tables


def caution(tables: Sequence[Table]) -> list[str]:
    """A warning where the rounds differ so much that something else must have used the machine."""
    rows = [row for table in tables for row in table.rows]
    unstable = sum(row.unstable for row in rows)
    if not unstable:
        return []
    return [
        f"{unstable} of {len(rows)} settings gave unstable figures: repeat on an idle machine before believing this"
    ]


def progress_steps(cores: int, rounds: int) -> int:
    """At most how often ``suggest`` calls ``advance`` on a machine without a GPU."""
    return (rounds + 1) * (len(thread_counts(cores)) + 1 + len(_BATCH_SIZES) + len(_PREFETCHES) + 2)


def main(argv: Sequence[str]) -> int:
    """``has-dali bench --suggest DATA``.

    Raises:
        ValueError, OSError: an option is bad or the data cannot be loaded.
    """
    parser = Parser("has-dali bench --suggest", "Threads, batch size and device for this machine, measured on DATA.")
    parser.add_argument("data", metavar="DATA", help="anything that image_loader takes")
    parser.add_argument("--size", default="224", metavar="N", help="height and width of the images (224)")
    parser.add_argument("--rounds", metavar="N", help="measured turns of each setting (3)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    options = parser.parse_args(argv)
    size, rounds = count("--size", options.size, 224), count("--rounds", options.rounds, 2 if options.quick else 3)
    if options.json is not None:
        check_writable(options.json)
    from has_dali.pipelines.data import open_data

    source = open_data(options.data, train=True)
    terminal = Terminal(options.quiet)
    started, begin, before = datetime.now(timezone.utc), time.perf_counter(), machine.state()
    window = timing.Window(seconds=0.25, batches=3, discarded=3) if options.quick else None
    with terminal.progress("measuring settings", progress_steps(available_cores(), rounds)) as advance:
        found, tables = suggest(source, size, rounds, window, advance)
    settings = {"size": size, "rounds": rounds, "quick": options.quick}
    data = machine.data_facts(source, Path(options.data).name)
    result = Result("suggest", "Settings", _CONDITIONS, settings, data, tables)
    rendering.show(terminal, result)
    for reason in found.reasons:
        terminal.say(f"- {reason}")
    terminal.say(found.code(options.data), "bold")
    if options.json is not None:
        stamp = started.isoformat(timespec="seconds")
        words = machine.tidy_argv(["has-dali", "bench", "--suggest", *argv])
        run = document(result, words, stamp, time.perf_counter() - begin, machine.described(before))
        recommended = {**vars(found.setting), "images_per_second": found.images_per_second}
        recommended["batch_mebibytes"] = found.batch_mebibytes
        code = found.code(Path(options.data).name)
        write_json(options.json, {"recommended": recommended, "reasons": found.reasons, "code": code, "run": run})
    return 0
