"""Memory over 10,000 batches: resident memory of the process, and device memory where there is a GPU, stay flat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.bench.soak import pictures
from has_dali.bench.soak.verdict import Trial
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek

BATCHES, SHORT_BATCHES = 10_000, 60
BATCH_SIZE, SIZE = 16, 64
IMAGES, SHORT_IMAGES = 256, 32
SAMPLES = 200  # readings of memory over the run
SETTLED = 0.2  # share of the run before memory is judged
# What 10,000 batches may grow by. One leaked batch in a hundred would be 75 MiB, an id list a batch 1.2 MiB.
BOUND_MIB = 16.0
# A short run is still filling pools, and its slope is carried on to 10,000 batches: only a leak of whole
# batches, 7,500 MiB, shows.
SHORT_BOUND_MIB = 4000.0
_MIB = 2**20


def run(folder: Path, short: bool, seed: int, threads: int | None, terminal: Terminal) -> Trial:
    """Load batches from files and from memory, with a jump to another position every 1,000 batches."""
    batches = SHORT_BATCHES if short else BATCHES
    bound = SHORT_BOUND_MIB if short else BOUND_MIB
    root = pictures.write_folder(folder / "images", SHORT_IMAGES if short else IMAGES)
    figures: dict[str, Any] = {"bound_mib": bound, "batch_size": BATCH_SIZE, "size": SIZE}
    problems = []
    for kind, cache in (("files", None), ("decoded", "decoded")):
        readings = _readings(root, batches, seed, threads, cache, terminal, kind)
        found = {name: slope(readings[:, 0], readings[:, column]) for name, column in _columns(readings)}
        figures[kind] = {"batches": batches, **found}
        for name, values in found.items():
            if values["growth_mib"] > bound:
                grown = f"{values['growth_mib']:.1f} MiB in {BATCHES} batches, bound {bound:g}"
                problems.append(f"{kind}: {name} memory grows by {grown}")
    summary = ", ".join(
        f"{kind}: {name} {values['growth_mib']:+.2f} MiB per {BATCHES} batches (at {values['median_mib']:.0f})"
        for kind in ("files", "decoded")
        for name, values in figures[kind].items()
        if isinstance(values, dict)
    )
    return Trial("memory", summary, figures, problems)


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


def _readings(
    root: Path, batches: int, seed: int, threads: int | None, cache: str | None, terminal: Terminal, kind: str
) -> np.ndarray:
    """(M, 3): batches done, bytes resident, bytes used on the device (0 without one)."""
    from has_dali.pipelines.loader import image_loader

    policy = HideAndSeek((0, 8, 16, 32), seed=seed)
    loader = image_loader(
        root, BATCH_SIZE, train=True, policy=policy, size=SIZE, seed=seed, threads=threads, cache=cache
    )
    every, jump = max(batches // SAMPLES, 1), max(batches // 10, 1)
    readings = []
    done = 0
    with terminal.progress(f"memory, {kind}", batches) as advance:
        while done < batches:
            for _ in loader:
                done += 1
                if done % every == 0:
                    readings.append((done, resident(), device_used(loader.device)))
                    advance(every)
                if done % jump == 0 or done == batches:
                    break  # as a run that is resumed elsewhere: work under way is dropped
    return np.array(readings, float)


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
