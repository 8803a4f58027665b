"""The long trials in short, and that each of them can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from has_dali.bench.soak import __main__ as soak
from has_dali.bench.soak import fuzz, kill, memory, memory_kinds, mutations, pictures
from has_dali.console import Terminal
from has_dali.pipelines import graph

QUIET = Terminal(quiet=True)


def test_memory_stays_flat(tmp_path: Path) -> None:
    trial = memory.run(tmp_path, True, 0, 1, QUIET)
    assert trial.passed, trial.problems
    for kind in memory_kinds.KINDS:
        found = trial.figures[kind]
        assert found["batches"] == memory.SHORT_BATCHES and found["resident"]["most_mib"] > 0
        assert found["counts"]["late"]["objects"] > 100 and found["counts"]["late"]["threads"] > 1
    assert "60 batches of each of files, decoded, skip, schedule, paired, anew: 0 counts grew" in trial.summary


class _Hoarding:
    """A loader that keeps something of every batch, or of every epoch."""

    def __init__(self, loader: Any, keep: Callable[[dict[str, Any]], Any] | None) -> None:
        self.loader, self.keep = loader, keep
        self.kept: list[Any] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.keep is None:
            self.kept.append(open(__file__, "rb"))  # noqa: SIM115
        for batch in self.loader:
            if self.keep is not None:
                self.kept.append(self.keep(batch))
            yield batch


@pytest.mark.parametrize(
    ("keep", "found"),
    [
        (lambda batch: batch["id"], "40 more tensors at the end"),
        (lambda batch: [[], [], []], "more objects at the end"),
        (None, "more files at the end"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_left_over_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Callable[[dict[str, Any]], Any] | None, found: str
) -> None:
    setup = memory.Setup.beside(pictures.write_folder(tmp_path / "images", 16), 0, 1)
    straight = memory.KINDS["decoded"]
    monkeypatch.setitem(memory.KINDS, "decoded", lambda setup: _Hoarding(straight(setup), keep))
    _, early, late = memory.watched(setup, "decoded", 60, 6, QUIET)
    assert any(found in problem for problem in memory.left_over(early, late)), (early, late)


def test_pipelines_that_stay_alive_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one has threads of its own."""
    kept: list[Any] = []
    straight = graph.build

    def build(*arguments: Any) -> Any:
        kept.append(straight(*arguments))
        return kept[-1]

    monkeypatch.setattr(graph, "build", build)
    setup = memory.Setup.beside(pictures.write_folder(tmp_path / "images", 48), 0, 1)
    _, early, late = memory.watched(setup, "schedule", 18, 6, QUIET)
    assert len(kept) >= 5
    assert any("more threads at the end" in problem for problem in memory.left_over(early, late)), (early, late)


def test_a_leak_is_found() -> None:
    batches = np.arange(0, 10_001, 50.0)
    noise = np.random.default_rng(0).normal(0, 2**20, len(batches))
    flat = memory.slope(batches, 700 * 2**20 + noise + 50 * 2**20 * np.minimum(batches / 1000, 1))  # warming up
    leaking = memory.slope(batches, 700 * 2**20 + noise + 2400 * batches)  # 2.4 kB a batch
    assert abs(flat["growth_mib"]) < 2 < memory.BOUND_MIB < leaking["growth_mib"]


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    trial = kill.run(tmp_path, True, 0, 1, QUIET)
    assert trial.passed, trial.problems
    assert trial.figures["kills"] == kill.SHORT_KILLS and trial.figures["equal"] == trial.figures["batches"]
    assert all(life["batches"] >= 1 for life in trial.figures["lives"])


def test_differing_batches_are_found() -> None:
    run = [b"0 a", b"1 b", b"2 c"]
    assert kill._differences(run, run, 3) == []
    assert kill._differences(run, [b"0 a", b"1 x", b"2 y"], 3) == ["batch 1 differs from the undisturbed run's"]
    assert kill._differences(run, run[:2], 3) == ["expected 3 batches, got 3 undisturbed and 2 with kills"]


def test_damaged_files_are_shown_or_named(tmp_path: Path) -> None:
    trial = fuzz.run(tmp_path, True, 0, 1, QUIET)
    assert trial.passed, trial.problems
    figures = trial.figures
    assert figures["files"] == fuzz.SHORT_FILES == figures["shown"] + figures["broken"]
    assert 100 < figures["peak_mib"] < fuzz.MEMORY_MIB
    assert figures["shown"] > 10 and figures["broken"] > 10 and figures["fatal"] == 0


class _FakeReader(fuzz.Reader):
    """Dies of the files it is told to."""

    def __init__(self, folder: Path, outcome: fuzz.Outcome, deadly: set[int], together: bool = False) -> None:
        super().__init__(folder, 1, outcome)
        self.deadly, self.together, self.outcome = deadly, together, outcome

    def _run(self, numbers: list[int], train: bool) -> str | None:
        found = self.deadly & set(numbers)
        if found == self.deadly if self.together else found:
            return "killed by signal 11"
        self.outcome.shown |= set(numbers)
        return None


def test_the_file_that_kills_a_process_is_found(tmp_path: Path) -> None:
    outcome = fuzz.Outcome()
    _FakeReader(tmp_path, outcome, {3, 70}).read(range(100), train=True)
    assert set(outcome.fatal) == {3, 70} and outcome.shown == set(range(100)) - {3, 70}
    outcome = fuzz.Outcome()
    _FakeReader(tmp_path, outcome, {3, 70}, together=True).read(range(100), train=True)
    assert outcome.fatal == {0: "killed by signal 11, with files 0 to 99 together"}


def test_verdict_on_files_that_vanish_or_are_blank(tmp_path: Path) -> None:
    outcome = fuzz.Outcome(shown={0, 2}, constant=[2], fatal={3: "hangs"}, peak_mib=9000.4)
    reader = _FakeReader(tmp_path, outcome, set())
    reader.path(2).write_bytes(pictures.encoded(0))
    trial = fuzz._judged(outcome, dict.fromkeys(range(4), "cut off"), 5, reader)
    assert trial.problems == [
        "file 3 of seed 5 (cut off): hangs",
        "file 1 of seed 5 (cut off): neither shown nor named broken",
        "file 2 of seed 5 (cut off): shown in one colour, but Pillow sees more than one colour",
        "a process took 9000 MiB of memory, bound 4096",
    ]


def test_mutations_repeat_and_damage() -> None:
    first = [mutations.mutated(7, number) for number in range(200)]
    assert first == [mutations.mutated(7, number) for number in range(200)]
    assert {name for name, _ in first} == set(mutations.MUTATIONS)
    originals = {pictures.encoded(number) for number in range(mutations.ORIGINALS)}
    assert len(originals) == mutations.ORIGINALS
    assert sum(data in originals for _, data in first) < 10
    assert len({data for _, data in first}) > 190


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The report, and the exit codes of trials that pass and fail."""
    good = soak.Trial("memory", "flat", {"growth": 0.0})
    bad = soak.Trial("fuzz", "bad", {}, ["file 1 hangs"])
    monkeypatch.setattr(soak, "TRIALS", {"memory": lambda *_: good, "fuzz": lambda *_: bad})
    report = tmp_path / "soak.json"
    assert soak.main(["all", "--short", "--json", str(report)]) == 1
    assert "file 1 hangs" in capsys.readouterr().out
    document = json.loads(report.read_text())
    assert document["passed"] is False and document["trials"]["memory"]["passed"] is True
    assert soak.main(["memory", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_bad_arguments_end_in_one_line() -> None:
    command = [sys.executable, "-m", "has_dali.bench.soak", "memory", "--json", "/no/such/folder/x.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "does not exist" in done.stderr
