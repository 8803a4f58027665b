"""Scope ``pack``: the same loader on image files, on the same images packed, and on raw shards; FFCV beside them.

The images are packed into a temporary folder first, which is not part of the figures but told in the rows: how long it
took, and how much room an image needs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.bench import timing
from has_dali.bench.harness import Contender, Step, measure_table, silent
from has_dali.bench.peers import loader_ffcv, loader_job
from has_dali.bench.peers.loader_data import image_files
from has_dali.bench.peers.loader_job import AREA, ASPECT, BATCH_SIZE, Job, job_for, some_of, warm_page_cache
from has_dali.bench.peers.loader_turns import steps
from has_dali.bench.results import Bar, Result, Table
from has_dali.bench.same_job import Judge
from has_dali.bench.scope_options import count
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.sources import FileSource

NAME = "pack"
ORIGINALS, PACKED, RAW, FFCV = "originals", "packed", "raw", "ffcv"
CONDITIONS = (
    "the same images in each form, page cache warm for all; loaders measured in turns, each with one thread per core;"
    " median of the rounds; float32 NCHW torch tensors in CPU memory, random resized crop, antialiased"
)
_MOST_IMAGES = 1024  # raw, they take about 300 MB
_LEAST_PACKED, _AIM_PACKED, _LEAST_RAW = 2.0, 3.0, 2.0
_WINDOW = timing.Window(seconds=1.0, batches=8, discarded=6, warm_up_seconds=0.5)
_QUICK_WINDOW = timing.Window(seconds=0.5, batches=4, discarded=4)
_CONTENDERS = 4


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this scope."""
    parser.add_argument("data", nargs="?", metavar="DATA", help="one folder of images per class (an embedded corpus)")
    parser.add_argument("--rounds", metavar="N", help="turns of each loader (5; quick: 2)")
    parser.add_argument("--batch", default=str(BATCH_SIZE), metavar="N", help=f"images per batch ({BATCH_SIZE})")
    parser.add_argument("--size", default="224", metavar="N", help="height and width of the images (224)")
    parser.add_argument("--short-side", default="256", metavar="PIXELS", help="of packed images (256)")
    parser.add_argument("--quality", default="90", metavar="N", help="of packed JPEGs (90)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Pack a set of files both ways and measure.

    Raises:
        ValueError: an option is out of range.
        OSError: the data are missing, or the disk is full.
    """
    rounds = count("--rounds", options.rounds, 2 if options.quick else 5)
    batch_size, size = count("--batch", options.batch, BATCH_SIZE), count("--size", options.size, 224)
    form = {
        "short_side": count("--short-side", options.short_side, 256),
        "quality": count("--quality", options.quality, 90),
    }
    files, data = image_files(options.data, terminal)
    source = some_of(files, _MOST_IMAGES)
    threads = available_cores()
    job = job_for(source, HideAndSeek(), threads, batch_size, size)
    window = _QUICK_WINDOW if options.quick else _WINDOW
    with tempfile.TemporaryDirectory(prefix="has_dali_pack_") as folder:
        with terminal.progress("packing", 2 * len(source)) as advance:
            forms = packed_forms(source, Path(folder), form, advance)
        with terminal.progress("measuring loaders", _CONTENDERS * (rounds + 1)) as advance:
            table = measure(job, forms, form, rounds, window, advance)
    settings = {
        "rounds": rounds, "batch_size": batch_size, "size": size, "threads": threads, **form,
        "images": len(source), "policy": job.policy.to_dict(), "quick": options.quick,
    }  # fmt: skip
    return Result(NAME, "Originals, packed shards, raw shards", CONDITIONS, settings, data, [table], bars(table))


def packed_forms(
    source: FileSource, folder: Path, form: dict[str, int], advance: Callable[[int], None] = lambda images: None
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """The source itself, as packed JPEGs and as raw shards, each with facts about it."""
    from has_dali.pipelines.data import open_data
    from has_dali.pipelines.packing import pack

    warm_page_cache(job_for(source, HideAndSeek(), 1))
    bytes_of = sum(Path(source.path(n)).stat().st_size for n in range(len(source)))
    forms: dict[str, tuple[Any, dict[str, Any]]] = {ORIGINALS: (source, _facts(bytes_of, len(source)))}
    for key, raw in ((PACKED, False), (RAW, True)):
        start = time.perf_counter()
        short_side, quality = form["short_side"], form["quality"]
        report = pack(source, folder / key, short_side=short_side, quality=quality, raw=raw, advance=advance)
        facts = _facts(report.bytes, report.images)
        facts["packed_images_per_second"] = report.images / (time.perf_counter() - start)
        forms[key] = (open_data(folder / key, train=True), facts)
    return forms


def measure(
    job: Job,
    forms: dict[str, tuple[Any, dict[str, Any]]],
    form: dict[str, int],
    rounds: int,
    window: timing.Window = _WINDOW,
    advance: Callable[..., None] = silent,
) -> Table:
    """The loaders in turns.

    Args:
        job: on the original files.
        forms: what ``packed_forms`` gave.
        form: short side and quality.
    """
    check = partial(Judge(job.policy, job.batch_size, job.size).verdict, hides=True)
    labels = {
        ORIGINALS: "has_dali on the original files",
        PACKED: f"has_dali on packed shards (short side {form['short_side']}, JPEG {form['quality']})",
        RAW: f"has_dali on raw shards (short side {form['short_side']})",
    }
    contenders = [
        Contender(key, label, partial(_ours, job, forms[key][0]), check, units=job.batch_size, kind="ours",
                  extra=forms[key][1])
        for key, label in labels.items()
    ]  # fmt: skip
    contenders.append(
        Contender(
            FFCV,
            f"FFCV (.beton, JPEG {90}, original sizes), Python HaS on its batch",
            partial(steps, partial(loader_ffcv.loader, job)),
            check,
            units=job.batch_size,
        )
    )
    return measure_table(
        NAME,
        f"{len(forms[ORIGINALS][0])} images to batches of {job.batch_size}, {job.size} x {job.size}",
        contenders,
        baseline=ORIGINALS,
        rounds=rounds,
        window=window,
        parameters={"batch_size": job.batch_size, "size": job.size, "policy": job.policy.to_dict(), **form},
        advance=advance,
    )


def bars(table: Table) -> list[Bar]:
    """Packed over original, raw over packed."""
    return [
        Bar(
            "packed shards over the same loader on the original files",
            table.speed_ratio(PACKED, ORIGINALS), _LEAST_PACKED, aim=_AIM_PACKED,
        ),
        Bar("raw shards over packed JPEG shards", table.speed_ratio(RAW, PACKED), _LEAST_RAW),
    ]  # fmt: skip


def _facts(size: int, images: int) -> dict[str, Any]:
    return {"kilobytes_per_image": size / images / 1000}


@contextmanager
def _ours(job: Job, source: Any) -> Iterator[Step]:
    """This project's loader on a source, listed again as often as the job lists its files."""
    from has_dali.pipelines import image_loader

    count = len(source)
    repeats = -(-max(loader_job.EPOCH_IMAGES, job.batch_size) // count)
    loader = image_loader(
        source.select(np.tile(np.arange(count), repeats)),
        job.batch_size,
        train=True,
        policy=job.policy,
        size=job.size,
        device="cpu",
        threads=job.threads,
        scale=AREA,
        ratio=ASPECT,
        prefetch=job.prefetch,
    )
    yield partial(next, timing.endless(loader))
