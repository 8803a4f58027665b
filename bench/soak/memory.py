"""Memory over 10,000 batches of each kind of loader: resident and device memory stay flat, and nothing is left over.

A slope needs a long run. What is counted needs none: tensors and other objects of Python, threads and open files
are as many after a run as they were early in it, however short it is.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.bench import timing
from has_dali.bench.soak import pictures
from has_dali.bench.soak.memory_kinds import ANEW, BATCH_SIZE, KINDS, SIZE, Setup
from has_dali.bench.soak.verdict import Trial
from has_dali.console import Terminal

BATCHES, SHORT_BATCHES = 10_000, 60
IMAGES, SHORT_IMAGES = 256, 48
JUMPS, SHORT_JUMPS = 25, 6  # drops of the work under way, at another position each
SAMPLES = 200  # readings of memory over the run
SETTLED = 0.2  # share of the run before memory is judged
# What 10,000 batches may grow by. One leaked batch in a hundred would be 75 MiB, an id list a batch 1.2 MiB.
BOUND_MIB = 16.0
# The schedule's loader builds 3,333 pipelines meanwhile. DALI itself leaves 2 to 3 KiB of each (1,000 of a decoder
# and a resize), and the loader was seen to grow by 6; a pipeline that stayed alive would be more than 1 MiB.
BOUNDS_MIB = {"schedule": 64.0}
# What may be more at the end than after the settling, whatever the length of the run. Batches computed ahead
# hold tensors, threads and files open; the objects are mostly the progress display's.
COUNT_BOUNDS = {"tensors": 8, "objects": 30, "threads": 4, "files": 4}
_MIB = 2**20


def run(folder: Path, short: bool, seed: int, threads: int | None, terminal: Terminal) -> Trial:
    """Load batches of every kind, with a jump to another position now and then; a short run is judged by counts."""
    batches = SHORT_BATCHES if short else BATCHES
    root = pictures.write_folder(folder / "images", SHORT_IMAGES if short else IMAGES)
    setup = Setup.beside(root, seed, threads)
    bounds = {kind: BOUNDS_MIB.get(kind, BOUND_MIB) for kind in KINDS}
    figures: dict[str, Any] = {"bounds_mib": bounds, "count_bounds": COUNT_BOUNDS}
    figures |= {"batch_size": BATCH_SIZE, "size": SIZE}
    problems = []
    for kind in KINDS:
        readings, early, late = watched(setup, kind, batches, SHORT_JUMPS if short else JUMPS, terminal)
        found = {name: slope(readings[:, 0], readings[:, column]) for name, column in _columns(readings)}
        figures[kind] = {"batches": batches, **found, "counts": {"early": early, "late": late}}
        problems += [f"{kind}: {problem}" for problem in left_over(early, late)]
        for name, values in found.items():
            if values["growth_mib"] > bounds[kind] and not short:  # in a short run pools are still being filled
                grown = f"{values['growth_mib']:.1f} MiB in {BATCHES} batches, bound {bounds[kind]:g}"
                problems.append(f"{kind}: {name} memory grows by {grown}")
    if short:
        summary = f"{batches} batches of each of {', '.join(KINDS)}: {len(problems)} counts grew"
    else:
        summary = ", ".join(
            f"{kind}: {name} {values['growth_mib']:+.2f} MiB per {BATCHES} batches (at {values['median_mib']:.0f})"
            for kind in KINDS
            for name, values in figures[kind].items()
            if name in ("resident", "device")
        )
    return Trial("memory", summary, figures, problems)


def watched(
    setup: Setup, kind: str, batches: int, jumps: int, terminal: Terminal
) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    """A run of one kind.

    Returns:
        (M, 3): batches done, bytes resident, bytes used on the device (0 without one); and ``counts`` after the
        first jump behind the settling, and at the end.
    """
    gc.freeze()  # what is there already counts no more, and costs no time
    try:
        return _watched(setup, kind, batches, jumps, terminal)
    finally:
        gc.unfreeze()


def _watched(
    setup: Setup, kind: str, batches: int, jumps: int, terminal: Terminal
) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    loader = KINDS[kind](setup)
    every, jump = max(batches // SAMPLES, 1), max(batches // jumps, 1)
    readings = []
    early: dict[str, int] | None = None
    done = 0
    with terminal.progress(f"memory, {kind}", batches) as advance:
        while done < batches:
            for batch in loader:
                done += 1
                if done % every == 0:
                    readings.append((done, resident(), device_used(batch["image"].device)))
                if done % jump == 0 or done == batches:
                    break  # as a run that is resumed elsewhere: work under way is dropped
            if done % jump == 0 and done < batches:
                advance(jump)  # rarely: the display keeps an object of each call
                if early is None and done >= SETTLED * batches:
                    early = counts()
                if kind in ANEW:
                    loader = KINDS[kind](setup)
    late = counts()
    return np.array(readings, float), early or late, late


def counts() -> dict[str, int]:
    """What this process holds: tensors, all unfrozen objects that Python's collector knows, threads, open files."""
    import torch

    timing.settle()  # else how far ahead the loader is would count
    gc.collect()
    known = gc.get_objects()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in known)
    threads, files = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))
    return {"tensors": tensors, "objects": len(known), "threads": threads, "files": files}


def left_over(early: dict[str, int], late: dict[str, int]) -> list[str]:
    """In words: what there is more of at the end of a run than early in it."""
    return [
        f"{late[name] - early[name]} more {name} at the end ({late[name]}) than early on, bound {bound}"
        for name, bound in COUNT_BOUNDS.items()
        if late[name] - early[name] > bound
    ]


def slope(batches: np.ndarray, used: np.ndarray) -> dict[str, float]:
    """Growth of ``used`` bytes over the settled part of a run, by least squares, in MiB per 10,000 batches."""
    settled = batches >= SETTLED * batches[-1]
    x, y = batches[settled], used[settled] / _MIB
    return {
        "growth_mib": float(np.polyfit(x, y, 1)[0] * BATCHES),
        "first_mib": float(y[0]),
        "last_mib": float(y[-1]),
        "least_mib": float(y.min()),
        "most_mib": float(y.max()),
        "median_mib": float(np.median(y)),
    }


def _columns(readings: np.ndarray) -> list[tuple[str, int]]:
    return [("resident", 1)] + ([("device", 2)] if readings[:, 2].any() else [])


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def device_used(device: Any) -> int:
    """Bytes in use on a CUDA device, by all processes; 0 on the CPU."""
    if device.type == "cpu":
        return 0
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)
