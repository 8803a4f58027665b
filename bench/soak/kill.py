"""Random SIGKILLs: a process that trains is killed and started again gives the batches of an undisturbed run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.bench.soak import pictures, victim
from has_dali.bench.soak.verdict import Trial
from has_dali.bench.soak.victim import BATCH_SIZE, LOG, STATE
from has_dali.console import Terminal
from has_dali.kernels.threads import available_cores

KILLS, SHORT_KILLS = 50, 1
IMAGES = 100  # an epoch of 12 batches and a remainder: most runs go through several epochs
MOST_BATCHES = 16  # that a process lives for
BROKEN = slice(0, IMAGES, IMAGES // 2)  # two of the images
IN_START_UP = 0.15  # share of kills that come before the first batch
PAUSE_MS = 4.0  # of each step, as a model would take
LIMIT_S = 120  # for one process: more is a hang


def run(folder: Path, short: bool, seed: int, threads: int | None, terminal: Terminal) -> Trial:
    """Kill, resume, and compare the concatenated digests of all batches with those of a run that nobody killed."""
    kills = SHORT_KILLS if short else KILLS
    batches = kills * MOST_BATCHES // 2 + MOST_BATCHES
    images = pictures.write_folder(folder / "images", IMAGES)
    for path in sorted(images.rglob("*.jpg"))[BROKEN]:
        path.write_bytes(b"no image")
    words = [str(batches), str(seed), str(threads or available_cores()), str(PAUSE_MS)]
    rng = np.random.default_rng([seed, 50])
    whole, killed = folder / "whole", folder / "killed"
    for place in (whole, killed):
        place.mkdir()
    problems: list[str] = []
    lives: list[dict[str, Any]] = []
    with terminal.progress("kill and resume", kills + 2) as advance:
        if short:  # a process less
            victim.main([str(images), str(whole), *words])
        else:
            with _start(images, whole, words) as process:
                _finish(process, problems)
        advance()
        for _ in range(kills):
            before = _done(killed)
            room = max(batches - before - 1, 1)  # the last batches are left to the run after the last kill
            live = 0 if not short and rng.random() < IN_START_UP else int(rng.integers(1, min(MOST_BATCHES, room) + 1))
            delay = float(rng.uniform(0, 1.5 if live == 0 else 2 * PAUSE_MS / 1000))
            with _start(images, killed, words) as process:
                _kill_after(process, killed, before + live, delay, problems)
            lives.append({"wanted": live, "batches": _done(killed) - before})
            advance(1, f"{_done(killed)} of {batches} batches")
            if problems:
                break
        if not problems:
            with _start(images, killed, words) as process:
                _finish(process, problems)
        advance()
    expected, got = (_lines(place / LOG) for place in (whole, killed))
    replaced = _replaced(whole)
    if not problems:
        problems += _differences(expected, got, batches)
        if not replaced or _replaced(killed) != replaced:
            problems.append(f"{_replaced(killed)} broken files were replaced, {replaced} in the undisturbed run")
    figures = {
        "kills": len(lives), "batches": batches, "batch_size": BATCH_SIZE, "batches_per_epoch": IMAGES // BATCH_SIZE,
        "replaced": replaced, "equal": sum(a == b for a, b in zip(expected, got, strict=False)),
        "before_the_first_batch": sum(life["batches"] == 0 for life in lives), "lives": lives,
    }  # fmt: skip
    summary = f"{len(lives)} SIGKILLs, {figures['equal']} of {batches} batches equal bit for bit to the undisturbed run"
    return Trial("kill", summary, figures, problems)


def _start(images: Path, folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "has_dali.bench.soak.victim", str(images), str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines() if log.exists() else []


def _done(folder: Path) -> int:
    """Batches that the state in a folder counts; the state is always whole."""
    path = folder / STATE
    return int(json.loads(path.read_bytes())["done"]) if path.exists() else 0


def _replaced(folder: Path) -> int:
    """Draws of broken files that the state in a folder counts."""
    path = folder / STATE
    return int(json.loads(path.read_bytes())["replaced"]) if path.exists() else 0


def _kill_after(
    process: subprocess.Popen[bytes], folder: Path, batches: int, delay: float, problems: list[str]
) -> None:
    deadline = time.monotonic() + LIMIT_S
    try:
        while _done(folder) < batches and process.poll() is None:
            if time.monotonic() > deadline:
                problems.append(f"no batch {batches} after {LIMIT_S} s: the process hangs")
                return
            time.sleep(0.001)
        time.sleep(delay)
        if process.poll() is not None and process.returncode != 0:
            problems.append(f"the process ended by itself: {_last_words(process)}")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _finish(process: subprocess.Popen[bytes], problems: list[str]) -> None:
    try:
        process.wait(timeout=LIMIT_S)
        if process.returncode != 0:
            problems.append(f"a run that nobody killed failed: {_last_words(process)}")
    except subprocess.TimeoutExpired:
        problems.append(f"a run that nobody killed hangs for {LIMIT_S} s")
    finally:
        process.kill()
        process.wait()


def _last_words(process: subprocess.Popen[bytes]) -> str:
    text = b"" if process.stderr is None else process.stderr.read()
    lines = text.decode(errors="replace").strip().splitlines()
    return f"exit code {process.returncode}: {lines[-1] if lines else 'no message'}"


def _differences(expected: list[bytes], got: list[bytes], batches: int) -> list[str]:
    problems = []
    if len(expected) != batches or len(got) != batches:
        problems.append(f"expected {batches} batches, got {len(expected)} undisturbed and {len(got)} with kills")
    first = next((n for n, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), None)
    if first is not None:
        problems.append(f"batch {first} differs from the undisturbed run's")
    return problems
