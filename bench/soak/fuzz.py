"""Damaged JPEGs through ``image_loader(on_error="skip")``: none may crash the process, hang it, use up its memory, or
vanish in silence.

Every file ends as decoded or as named broken. Files are loaded by processes of their own; where one dies or hangs, its
list is halved until the file that does it is found.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from has_dali.bench.soak.fuzz_reader import BATCH_SIZE
from has_dali.bench.soak.mutations import MUTATIONS, mutated
from has_dali.bench.soak.verdict import Trial
from has_dali.console import Terminal
from has_dali.kernels.threads import available_cores

FILES, SHORT_FILES = 10_000, 48
FILES_PER_PROCESS = 500
LIMIT_S = 60.0  # for a process, and
LIMIT_PER_FILE_S = 1.0  # more for each file; a sound one takes a millisecond, a broken one some tens
# Resident memory of a process. A header may claim an image of 12 GB; the largest that is decoded has 0.5 GiB.
MEMORY_MIB = 4096
MOST_CULPRITS = 10  # after so many the trial stops: there is enough to look into


@dataclass
class Outcome:
    """What became of the files so far, by number."""

    shown: set[int] = field(default_factory=set)
    broken: dict[int, str] = field(default_factory=dict)
    constant: list[int] = field(default_factory=list)
    fatal: dict[int, str] = field(default_factory=dict)
    processes: int = 0
    peak_mib: float = 0.0


def run(folder: Path, short: bool, seed: int, threads: int | None, terminal: Terminal) -> Trial:
    """Write damaged files, load them in training and evaluation by turns, and count what became of them."""
    count = SHORT_FILES if short else FILES
    outcome = Outcome()
    reader = Reader(folder, threads or available_cores(), outcome)
    kinds: dict[int, str] = {}
    with terminal.progress("damaged files", count) as advance:
        for number in range(0, count, FILES_PER_PROCESS):
            numbers = list(range(number, min(number + FILES_PER_PROCESS, count)))
            for n in numbers:
                kinds[n], content = mutated(seed, n)
                reader.path(n).write_bytes(content)
            reader.read(numbers, train=bool(number // FILES_PER_PROCESS % 2))
            advance(len(numbers), f"{len(outcome.broken)} broken, {len(outcome.fatal)} fatal")
            if len(outcome.fatal) >= MOST_CULPRITS:
                break
    return _judged(outcome, kinds, seed, reader)


class Reader:
    """Starts processes that load files, and finds the files that they die of.

    Args:
        folder: for the files.
        threads: of each process.
        outcome: what is found goes here.
    """

    def __init__(self, folder: Path, threads: int, outcome: Outcome) -> None:
        self._folder, self._threads, self._outcome = folder, threads, outcome

    def path(self, number: int) -> Path:
        """The file of a number."""
        return self._folder / f"{number:06}.jpg"

    def read(self, numbers: Sequence[int], train: bool) -> None:
        """Load files, and if that fails those that are left after a failure has been narrowed down."""
        if len(self._outcome.fatal) >= MOST_CULPRITS:
            return
        failure = self._run(numbers, train)
        if failure is None:
            return
        if len(numbers) == 1:
            self._outcome.fatal[numbers[0]] = failure
            return
        half = (len(numbers) + 1) // 2
        before = len(self._outcome.fatal)
        self.read(numbers[:half], train)
        self.read(numbers[half:], train)
        if len(self._outcome.fatal) == before:  # only all of them together
            self._outcome.fatal[numbers[0]] = f"{failure}, with files {numbers[0]} to {numbers[-1]} together"

    def _run(self, numbers: Sequence[int], train: bool) -> str | None:
        """What went wrong, or None; a process that ends well adds to the outcome."""
        # A batch that is not full would be dropped in training: the first files stand in once more.
        padded = [*numbers, *numbers[: -len(numbers) % BATCH_SIZE]] if len(numbers) > BATCH_SIZE else list(numbers)
        listed, result = self._folder / "list.txt", self._folder / "result.json"
        listed.write_text("\n".join(str(self.path(n)) for n in padded))
        result.unlink(missing_ok=True)
        words = [str(listed), str(result), "train" if train else "val", str(self._threads)]
        self._outcome.processes += 1
        try:
            done = subprocess.run(
                [sys.executable, "-m", "has_dali.bench.soak.fuzz_reader", *words],
                capture_output=True,
                timeout=LIMIT_S + LIMIT_PER_FILE_S * len(numbers),
            )
        except subprocess.TimeoutExpired:
            return f"hangs for more than {LIMIT_S + LIMIT_PER_FILE_S * len(numbers):.0f} s"
        if done.returncode < 0:
            return f"killed by signal {-done.returncode}"
        if done.returncode or not result.exists():
            words = done.stderr.decode(errors="replace").strip().splitlines()
            return f"exit code {done.returncode}: {words[-1][:300] if words else 'no message'}"
        found = json.loads(result.read_text())
        self._outcome.peak_mib = max(self._outcome.peak_mib, found["peak_mib"])
        self._outcome.shown |= {padded[i] for i in found["shown"]}
        self._outcome.broken |= {padded[int(i)]: reason for i, reason in found["broken"].items()}
        self._outcome.constant += [padded[i] for i in found["constant"]]
        return None


def silent(path: Path) -> str | None:
    """Why a file that is shown in a single colour should not be: Pillow refuses it, or sees more in it; else None."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except Exception as error:  # Pillow raises of many kinds on damaged files
        return f"Pillow refuses it ({type(error).__name__})"
    return None if (pixels == pixels[0, 0]).all() else "Pillow sees more than one colour"


def _judged(outcome: Outcome, kinds: dict[int, str], seed: int, reader: Reader) -> Trial:
    def named(number: int) -> str:
        return f"file {number} of seed {seed} ({kinds[number]})"

    problems = [f"{named(number)}: {reason}" for number, reason in sorted(outcome.fatal.items())]
    lost = sorted(set(kinds) - outcome.shown - set(outcome.broken) - set(outcome.fatal))
    if len(outcome.fatal) < MOST_CULPRITS:
        problems += [f"{named(number)}: neither shown nor named broken" for number in lost[:MOST_CULPRITS]]
    blank = {number: silent(reader.path(number)) for number in outcome.constant}
    problems += [f"{named(n)}: shown in one colour, but {reason}" for n, reason in sorted(blank.items()) if reason]
    if outcome.peak_mib > MEMORY_MIB:
        problems.append(f"a process took {outcome.peak_mib:.0f} MiB of memory, bound {MEMORY_MIB}")
    by_kind = {
        kind: {
            "files": sum(name == kind for name in kinds.values()),
            "broken": sum(kinds[number] == kind for number in outcome.broken),
        }
        for kind in MUTATIONS
    }
    figures = {
        "files": len(kinds), "shown": len(outcome.shown), "broken": len(outcome.broken), "fatal": len(outcome.fatal),
        "one_colour": len(blank), "processes": outcome.processes, "peak_mib": outcome.peak_mib, "by_kind": by_kind,
        "reasons": dict(Counter(outcome.broken.values()).most_common()),
    }  # fmt: skip
    summary = (
        f"{len(kinds)} damaged JPEGs: {len(outcome.shown)} shown, {len(outcome.broken)} named broken,"
        f" {len(outcome.fatal)} crashed or hung the process; at most"
        f" {outcome.peak_mib:.0f} MiB of memory"
    )
    return Trial("fuzz", summary, figures, problems)
