"""Scope ``arrays``: decoded images in memory to batches, our loader against torch's DataLoader.

DATA is CIFAR (a folder of its python batches, or an ``.npz`` or ``.npy`` file of 32 x 32 images); without it as many
images of noise as CIFAR has, which cost the same, since nothing is decoded. The DataLoader gets the data set as
torchvision's CIFAR10 keeps it, in memory, and as many workers as suit it best.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.bench import timing
from has_dali.bench.data_facts import data_facts
from has_dali.bench.harness import Contender, measure_table, silent
from has_dali.bench.peers import array_loaders
from has_dali.bench.peers.array_loaders import BATCH_SIZE, PADDING, SIZE
from has_dali.bench.peers.loader_turns import steps
from has_dali.bench.results import Bar, Result, Table
from has_dali.bench.same_job import Judge
from has_dali.bench.scope_options import count
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.arrays import ArraySource
from has_dali.pipelines.data import open_data

NAME = "arrays"
OURS = "has_dali"
CONDITIONS = (
    "images in memory; loaders measured in turns; worker processes start anew in every turn and their start is not"
    " counted; median of the rounds; float32 NCHW torch tensors delivered"
)
_LEAST = 10.0
_NOISE_IMAGES, _CLASSES = 50_000, 10
_WINDOW = timing.Window(seconds=1.0, batches=8, discarded=8, warm_up_seconds=0.5)
_QUICK_WINDOW = timing.Window(seconds=0.4, batches=8, discarded=8)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this scope."""
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="CIFAR's python batches, or an .npz or .npy file (noise of its size)"
    )
    parser.add_argument("--rounds", metavar="N", help="turns of each loader (7; quick: 3)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Measure our loader and the DataLoader with none, as many and twice as many workers as there are cores.

    Raises:
        ValueError: an option is out of range, or the data are not 32 x 32 images.
        OSError: the data are missing.
    """
    rounds = count("--rounds", options.rounds, 3 if options.quick else 7)
    source = noise(_NOISE_IMAGES) if options.data is None else open_images(options.data)
    data = data_facts(source, "noise" if options.data is None else Path(options.data).name)
    threads = available_cores()
    window = _QUICK_WINDOW if options.quick else _WINDOW
    with terminal.progress("measuring loaders", 4 * (rounds + 1)) as advance:
        table = measure(source, threads, rounds, window, advance)
    settings = {"rounds": rounds, "threads": threads, **table.parameters, "quick": options.quick}
    return Result(NAME, "Images in memory", CONDITIONS, settings, data, [table], [bar(table)])


def measure(
    source: ArraySource,
    threads: int,
    rounds: int,
    window: timing.Window = _WINDOW,
    advance: Callable[..., None] = silent,
) -> Table:
    """The loaders in turns."""
    policy = HideAndSeek.preset("cifar")
    judge = Judge(policy, BATCH_SIZE, SIZE)
    check = partial(judge.verdict, hides=True)
    ours = partial(array_loaders.ours, source, policy, threads)
    contenders = [
        Contender(OURS, "has_dali", partial(steps, ours), check, units=BATCH_SIZE, kind="ours", extra=_x(threads))
    ]
    for workers in sorted({0, threads, 2 * threads}):
        opened = partial(array_loaders.torchvision_loader, source, policy, workers)
        contenders.append(
            Contender(
                f"dataloader_{workers}",
                f"torchvision DataLoader, {workers} workers",
                partial(steps, opened),
                check,
                stays_open=False,  # its workers would go on while others are measured
                units=BATCH_SIZE,
                extra=_x(workers),
            )
        )
    return measure_table(
        NAME,
        f"{len(source):,} images of {SIZE} x {SIZE}: pad {PADDING}, crop, mirror, normalise, hide; batch {BATCH_SIZE}",
        contenders,
        baseline=OURS,
        rounds=rounds,
        window=window,
        parameters={"batch_size": BATCH_SIZE, "size": SIZE, "padding": PADDING, "policy": policy.to_dict()},
        advance=advance,
    )


def bar(table: Table) -> Bar:
    """Our loader over the fastest DataLoader."""
    what = "loader of images in memory over the fastest torchvision DataLoader with Python HaS"
    rated = [row for row in table.rows if row.key != OURS and row.value is not None]
    if not rated:
        return Bar(what, None, _LEAST, note="no DataLoader did the job")
    best = max(rated, key=lambda row: row.value.median if row.value else 0.0)
    return Bar(what, table.speed_ratio(OURS, best.key), _LEAST, note=f"the fastest is the {best.label}")


def open_images(data: str) -> ArraySource:
    """The images of DATA: at least as many as a batch, all 32 x 32."""
    source = open_data(data, train=True)
    if not isinstance(source, ArraySource):
        raise ValueError(f"DATA {data}: a folder of files; expected CIFAR's python batches, an .npz or an .npy file")
    if (source.shapes != SIZE).any() or len(source) < BATCH_SIZE:
        raise ValueError(f"DATA {data}: expected at least {BATCH_SIZE} images of {SIZE} x {SIZE}")
    return source


def noise(images: int) -> ArraySource:
    """Images of noise with labels, the same in every run."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3), np.uint8)
    return ArraySource.from_images(pixels, np.arange(images) % _CLASSES)


def _x(threads: int) -> dict[str, Any]:
    return {"threads": threads}
