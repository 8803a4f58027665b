"""One to four real processes over gloo: what they see together, and what is left of a run that was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest

from has_dali.pipelines import Sampler

SCRIPT = Path(__file__).with_name("process_support.py")
WORLDS = (1, 2, 3, 4)
COUNT, GLOBAL_BATCH = 30, 12
STEPS = COUNT // GLOBAL_BATCH


def _with_broken(folder: Path, files: list[Path], broken: Container[int]) -> str:
    """The files in two classes, some of them broken."""
    for n, file in enumerate(files):
        (folder / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[n % 2] / f"{n:02}.jpg").write_bytes(b"no image" if n in broken else file.read_bytes())
    return str(folder)


@pytest.fixture(scope="module")
def results(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What every rank of every job wrote; one launcher runs all jobs, one after the other."""
    folder = tmp_path_factory.mktemp("processes")
    files = sorted(image_folder.rglob("*.jpg"))
    data = _with_broken(folder / "data", files, (4, 9))
    jobs: dict[str, dict[str, Any]] = {}
    for world in WORLDS:
        jobs[f"train{world}"] = {"world": world, "epochs": 2, "learn": world in (1, 2)}
        jobs[f"eval{world}"] = {"world": world, "train": False}
    for world in (1, 3):
        jobs[f"skip{world}"] = {"world": world, "on_error": "skip", "data": data}
    # The ranks go on and on until they are killed.
    jobs["killed"] = {"world": 3, "epochs": 10_000, "kill_at": [3, GLOBAL_BATCH]}
    jobs["resumed"] = {"world": 2, "epochs": 2, "state": str(folder / "killed" / "state.json")}
    jobs["whole"] = {"world": 1, "epochs": 2, "epoch_of": str(folder / "killed" / "state.json")}
    rich = {"rich": True, "on_error": "skip", "data": _with_broken(folder / "rich", files, range(0, COUNT, 5))}
    jobs["rich_killed"] = {"world": 3, "epochs": 10_000, "kill_at": [1, GLOBAL_BATCH], **rich}
    state = str(folder / "rich_killed" / "state.json")
    jobs["rich_resumed"] = {"world": 2, "epochs": 2, "state": state, **rich}
    jobs["rich_whole"] = {"world": 1, "epochs": 2, "epoch_of": state, **rich}
    fewer = _with_broken(folder / "fewer", files[:-GLOBAL_BATCH], ())
    jobs["differ"] = {"world": 3, "fails": True, "data": data, "data_of": {"1": fewer}}
    first = int(Sampler(COUNT, GLOBAL_BATCH, train=True, seed=6).order(0)[0])  # rank 0 shows it in the first batch
    one = _with_broken(folder / "one", files, [[*range(0, COUNT, 2), *range(1, COUNT, 2)][first]])
    jobs["budget"] = {"world": 2, "fails": True, "data": one, "on_error": "skip", "error_budget": 0.0}
    for name, job in jobs.items():
        jobs[name] = {"data": str(image_folder), "global_batch": GLOBAL_BATCH, "out": str(folder / name), **job}
    (folder / "jobs.json").write_text(json.dumps(list(jobs.values())))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "jobs.json")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr

    def left(name: str, rank: int) -> Any:
        written = folder / name / f"rank{rank}"
        text = written.with_suffix(".txt" if "fails" in jobs[name] else ".json").read_text()
        return text if "fails" in jobs[name] else json.loads(text)

    return {
        name: [left(name, rank) for rank in range(job["world"])] for name, job in jobs.items() if "kill_at" not in job
    }


def _joined(ranks: list[dict[str, Any]], epoch: int) -> list[list[Any]]:
    """The global batches of an epoch: those of the ranks, one after the other."""
    parts = [rank["epochs"][epoch] for rank in ranks]
    assert len({len(part) for part in parts}) == 1
    return [[sample for part in parts for sample in part[step]] for step in range(len(parts[0]))]


@pytest.mark.parametrize("world", WORLDS)
def test_training(results: dict[str, list[Any]], world: int) -> None:
    """No sample twice, and batches, labels and pixels are those of a process alone."""
    for epoch in range(2):
        batches = _joined(results[f"train{world}"], epoch)
        ids = [sample[0] for batch in batches for sample in batch]
        assert len(ids) == len(set(ids)) == STEPS * GLOBAL_BATCH and set(ids) <= set(range(COUNT))
        assert batches == _joined(results["train1"], epoch)
    assert {sample[0] for sample in batches[0]} != {sample[0] for sample in _joined(results["train1"], 0)[0]}


@pytest.mark.parametrize("world", WORLDS)
def test_evaluation(results: dict[str, list[Any]], world: int) -> None:
    """Every sample once; the ranks' batches have one size, and padding that metrics can tell."""
    ranks = results[f"eval{world}"]
    assert len({tuple(len(batch) for batch in rank["epochs"][0]) for rank in ranks}) == 1
    samples = [sample for batch in _joined(ranks, 0) for sample in batch]
    real = [sample for sample in samples if sample[0] >= 0]
    assert real == [sample for batch in _joined(results["eval1"], 0) for sample in batch]
    assert [sample[0] for sample in real] == list(range(COUNT))
    padding = [sample for sample in samples if sample[0] < 0]
    assert len(padding) == -(COUNT % GLOBAL_BATCH) % world and all(sample[1] == -1 for sample in padding)
    assert sum(rank["report"]["samples"] for rank in ranks) == COUNT


def test_broken_files(results: dict[str, list[Any]]) -> None:
    """Replaced alike in every world, and known only to the ranks that drew them."""
    ranks = results["skip3"]
    assert _joined(ranks, 0) == _joined(results["skip1"], 0)
    order = Sampler(COUNT, GLOBAL_BATCH, train=True, seed=6).order(0)[: STEPS * GLOBAL_BATCH].tolist()
    broken = [2, 19]  # of the class folders' order: every other image is in the second folder
    drawn = [sample_id for sample_id in order if sample_id in broken]
    assert drawn and sum(rank["report"]["replaced"] for rank in ranks) == len(drawn)
    known = [file["id"] for rank in ranks for file in rank["report"]["broken"]]
    assert sorted(known) == sorted(drawn)


@pytest.mark.parametrize(("prefix", "killed_at"), [("", [3, GLOBAL_BATCH]), ("rich_", [1, GLOBAL_BATCH])])
def test_resuming_after_kill_9_on_another_world_size(
    results: dict[str, list[Any]], prefix: str, killed_at: list[int]
) -> None:
    """Three processes were killed in the middle of an epoch; two go on from the last state on disk.

    Also with broken files skipped, class-balanced sampling, two views and a policy schedule, all at once.
    """
    ranks, whole = results[f"{prefix}resumed"], results[f"{prefix}whole"]
    epoch, samples = ranks[0]["resumed_at"]
    assert [epoch, samples] >= killed_at and all(rank["resumed_at"] == [epoch, samples] for rank in ranks)
    for number, missed in enumerate((samples // GLOBAL_BATCH, 0)):
        assert _joined(ranks, number) == _joined(whole, number)[missed:]
    assert (whole[0]["report"]["replaced"] > 0) == bool(prefix)


def test_ranks_with_other_data_are_told(results: dict[str, list[Any]]) -> None:
    """All of them, before the first batch: unequal steps would leave the longer ones waiting."""
    errors = results["differ"]
    assert len(set(errors)) == 1 and errors[0].startswith("ValueError: the processes' loaders differ: ")
    assert "batches per epoch is 1 on rank 1, 2 on rank 0; data (fingerprint" in errors[0]


def test_a_rank_over_its_error_budget_ends_the_job(results: dict[str, list[Any]]) -> None:
    """One rank meets the broken file; the other, which waits for it, ends as well."""
    stopped, waiting = results["budget"]
    assert stopped.startswith("TooManyBrokenError: 1 of 30 samples cannot be loaded")
    assert waiting and "samples cannot be loaded" not in waiting


def test_two_processes_learn_what_one_does(results: dict[str, list[Any]]) -> None:
    """DistributedDataParallel over halves of the batches against one process over all of them."""
    (one,), two = results["train1"], results["train2"]
    assert two[0]["weights"] == two[1]["weights"]
    for mine, theirs in zip(one["weights"], two[0]["weights"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    assert max(map(abs, one["weights"][0])) > 0.01
