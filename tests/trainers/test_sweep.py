"""Sweeps: the arms of the paper's tables at any scale, what is run, and the tables that come out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from has_dali.cli import main
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.trainers.arguments import RunOptions, parse_run
from has_dali.trainers.results import paper
from has_dali.trainers.sweeps import sweep
from has_dali.trainers.sweeps.arms import ARMS, Arm, Scale
from has_dali.trainers.sweeps.jobs import Job
from has_dali.trainers.tasks import TASKS, task_kind

FULL = Scale(224, 55)
RECIPES = (
    ("localisation", "alexnet"), ("localisation", "googlenet"), ("localisation", "small"),
    ("classification", "cifar10-resnet44"),
)  # fmt: skip


def options(task: str, recipe: str, *words: str) -> RunOptions:
    argv = [task, "--recipe", recipe, "--data", "data", *words]
    return parse_run("has-dali sweep", argv, task, task_kind(task).settings)


def parsed(base: RunOptions, arm: Arm, seed: int = 0) -> RunOptions:
    """An arm's run, as its process reads it."""
    argv = sweep._job(base, Path("data"), arm, seed).command
    return parse_run("has-dali train", argv, base.task, task_kind(base.task).settings)


def policies(arms: Sequence[Arm], base: RunOptions) -> dict[str, HideAndSeek | None]:
    return {arm.name: parsed(base, arm).settings.hide.policy(0) for arm in arms}


def test_patch_sizes_follow_the_pictures() -> None:
    assert FULL.image_patches(0, 16, 32, 44, 56) == "[0,16,32,44,56]" and FULL.conv1_patches(5, 11) == "[5,11]"
    assert Scale(56, 28).image_patches(0, 16, 32, 44, 56) == "[0,4,8,11,14]"
    assert Scale(56, 28).conv1_patches(11) == "[6]"  # 5.6
    # 24 / 224 of 16, 32, 44, 56 is 1.7, 3.4, 4.7, 6.
    assert Scale(24, 12).image_patches(16, 32, 44, 56) == "[2,3,5,6]" and Scale(24, 12).conv1_patches(5, 11) == "[1,2]"
    assert Scale(2, 1).image_patches(0, 16) == "[0,1]" and Scale(2, 1).conv1_patches(5) == "[1]"


def test_the_scale_is_that_of_the_recipe_and_its_network() -> None:
    assert sweep.scale_of(options("localisation", "alexnet")) == FULL
    assert sweep.scale_of(options("localisation", "small")) == Scale(56, 28)
    assert sweep.scale_of(options("localisation", "small", "--loader.size", "24")).image == 24
    assert sweep.scale_of(options("classification", "cifar10-small")).image == 32


@pytest.mark.parametrize(("task", "recipe"), RECIPES)
def test_every_arm_is_read_by_the_real_parser_and_stands_for_rows_that_are_printed(task: str, recipe: str) -> None:
    base = options(task, recipe, "--trainer.max_epochs", "3", "--optim.lr=0.03")
    arms = ARMS[task](sweep.scale_of(base), "GoogLeNet" if recipe == "googlenet" else "AlexNet")
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms:
        run = parsed(base, arm, 7)
        assert (run.seed, run.trainer["max_epochs"], run.settings.optim.lr) == (7, 3, 0.03)
        assert run.out == base.out / arm.name / "seed-7"
        table, method = arm.rows[0]
        # Another network is not the paper's row, though it stands beside it; nor is a peer.
        row = (None, None) if table == "peer" or recipe == "small" else (table, method)
        assert (run.settings.paper.table, run.settings.paper.method) == row
        for table, method in arm.rows:
            assert table == "peer" or paper.rows(table, method)


def test_the_arms_are_all_of_the_papers_rows_that_can_be_trained_here() -> None:
    rows = {
        network: {row for arm in ARMS["localisation"](FULL, network) for row in arm.rows if row[0] != "peer"}
        for network in ("AlexNet", "GoogLeNet")
    }
    wanted = {(row.table, row.method) for table in ("II", "III", "IV", "V", "VI") for row in paper.rows(table)}
    assert wanted - rows["AlexNet"] - rows["GoogLeNet"] == {row for row in wanted if "Backprop" in row[1]}
    assert rows["GoogLeNet"] == {row for row in wanted if "GoogLeNet" in row[1] and "Backprop" not in row[1]}
    assert rows["AlexNet"] <= wanted
    assert {row for arm in ARMS["classification"](Scale(32, 0), "AlexNet") for row in arm.rows} == {
        ("VIII", "Full"), ("VIII", "HaS"), ("peer", "Random Erasing"),
    }  # fmt: skip


def test_the_arms_hide_what_the_paper_hides() -> None:
    base = options("localisation", "alexnet")
    arms = ARMS["localisation"](FULL, "AlexNet")
    found = policies(arms, base)
    assert found["gap"] is None and found["gmp"] is None and found["random-erasing"] is None
    for name in ("wsol-16", "wsol-32", "wsol-44", "wsol-56", "wsol-mixed"):
        assert found[name.replace("wsol", "has")] == HideAndSeek.preset(name)
    assert found["gmp-has-56"] == HideAndSeek.preset("wsol-56")
    assert found["conv1-5"] == HideAndSeek.preset("conv1-5") and found["conv1-11"] == HideAndSeek.preset("conv1-11")
    assert {n: found[f"p{n}"] for n in (25, 33, 66, 75)} == {
        n: HideAndSeek.preset("wsol-56", p_hide=n / 100) for n in (25, 33, 66, 75)
    }
    assert found["dropout-train"] == found["dropout-traintest"] == HideAndSeek((1,), 0.5)
    runs = {arm.name: parsed(base, arm).settings for arm in arms}
    assert [runs[f"dropout-{at}"].hide.at for at in ("train", "traintest")] == ["train", "traintest"]
    assert {name for name, settings in runs.items() if settings.model.pool == "gmp"} == {"gmp", "gmp-has-56"}
    assert runs["conv1-5"].hide.method == "conv1" and runs["random-erasing"].hide.method == "random-erasing"


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Runs that are at once finished, with metrics that tell them apart."""
    started: list[Job] = []

    def run(jobs: Sequence[Job], parallel: int, terminal: Terminal, title: str) -> None:
        started.extend(jobs)
        for job in jobs:
            job.out.mkdir(parents=True)
            seed = int(job.argv[job.argv.index("--seed") + 1])
            known = 10.0 * len(job.name.split()[0]) + 4 * seed
            metrics = {"gt_known": known, "top1_loc": 1.0, "top1": 2.0}
            report = {"version": 1, "metrics": {"last": metrics, "best": metrics}}
            (job.out / "report.json").write_text(json.dumps(report))

    monkeypatch.setattr(sweep, "run_jobs", run)
    return started


def swept(out: Path, *words: str) -> int:
    return main(["sweep", "localisation", "--recipe", "small", "--data", "data", "--out", str(out), *words])


def test_only_the_tables_asked_for(reports: list[Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept(tmp_path / "out", "--tables", "IV, V", "--seeds=2", "--json", str(tmp_path / "found.json")) == 0
    arms = ["gap", "has-56", "gmp", "gmp-has-56", "conv1-5", "conv1-11"]
    assert [job.name for job in reports] == [f"{arm} seed {seed}" for seed in range(2) for arm in arms]
    shown = capsys.readouterr().out
    assert "Table IV: average" in shown and "Table V: hiding" in shown and "Table II" not in shown
    line = next(line for line in shown.splitlines() if "AlexNet-Max-HaS(56)" in line)
    # 100 and 104: mean 102, sample standard deviation sqrt(8). The paper has 59.27.
    assert re.findall(r"[\d.]+", line.partition("gmp-has-56")[2])[:3] == ["102.00", "2.83", "59.27"]
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [(row["table"], row["arm"]) for row in rows] == [("IV", arm) for arm in arms[:4]] + [
        ("V", arm) for arm in arms[4:]
    ]
    assert rows[0]["values"]["gt_known"] == [30.0, 34.0] and rows[0]["paper"]["gt_known"] == 54.9


def test_an_arm_serves_all_its_tables(reports: list[Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept(tmp_path / "out", "--arms", "has-56", "--seeds", "1") == 0
    assert [job.name for job in reports] == ["has-56 seed 0"]
    shown = capsys.readouterr().out
    assert all(row in shown for row in ("AlexNet-HaS-56", "AlexNet-Avg-HaS(56)", "AlexNet-HaS-p50")) and "+-" in shown
    assert not re.search(r"60\.00 \+-", shown)  # one seed has no standard deviation


def test_what_is_finished_is_shown_when_a_run_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(jobs: Sequence[Job], *_: object) -> None:
        jobs[0].out.mkdir(parents=True)
        metrics = {"gt_known": 12.0, "top1_loc": 1.0, "top1": 2.0}
        report = {"version": 1, "metrics": {"last": metrics, "best": metrics}}
        (jobs[0].out / "report.json").write_text(json.dumps(report))
        raise RuntimeError("1 of 2 runs failed; the first, gmp seed 0: out of memory")

    monkeypatch.setattr(sweep, "run_jobs", run)
    assert swept(tmp_path / "out", "--arms", "gap,gmp", "--seeds", "1") == 1
    shown = capsys.readouterr()
    assert "12.00" in shown.out and "AlexNet-GMP" not in shown.out
    assert shown.err == "has-dali sweep: 1 of 2 runs failed; the first, gmp seed 0: out of memory\n"


@pytest.mark.parametrize(
    ("dataset", "printed"),
    [
        ({"train_images": 50_000, "val_images": 10_000, "classes": 10}, {"best top1": 94.97}),
        ({"train_images": 50_000, "val_images": 10_000, "classes": 100}, {"best top1": 75.82}),
        ({"train_images": 500, "val_images": 100, "classes": 10}, {}),
    ],
)
def test_table_8_has_a_row_for_each_data_set(
    dataset: dict[str, int], printed: dict[str, float], tmp_path: Path
) -> None:
    base = options("classification", "cifar10-resnet44", "--out", str(tmp_path))
    (arm,) = (arm for arm in ARMS["classification"](Scale(32, 0), "AlexNet") if arm.name == "has")
    folder = tmp_path / "has" / "seed-0"
    folder.mkdir(parents=True)
    metrics = {"last": {"top1": 90.0}, "best": {"top1": 91.0}}
    (folder / "report.json").write_text(json.dumps({"version": 1, "dataset": dataset, "metrics": metrics}))
    row = sweep._row(base, arm, "VIII", "HaS", 1)
    assert row.values == {"top1": [90.0], "best top1": [91.0]} and row.printed == printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tables", "VIII"], "--tables VIII: localisation has II, III, IV, V, VI, peer"),
        (["--arms", "has-57"], "--arms has-57: localisation has gap, has-16"),
        (["--arms", "gap", "--tables", "V"], "--arms gap: none of them is in --tables V"),
        (["--seeds", "0"], "--seeds 0: expected a whole number from 1"),
        (["--seeds"], "--seeds: expected a whole number from 1"),
        (["--jobs", "two"], "--jobs two: expected a whole number from 1"),
        (["--hide.methd", "has"], "hide.methd"),
    ],
)
def test_bad_words(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept(tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_missing_words(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, message in (
        (["sweep", "--seeds", "3"], "TASK is missing"),
        (["sweep", "lokalisation", "--recipe", "small"], "task 'lokalisation' is unknown"),
        (["sweep", "localisation", "--recipe", "small"], "--data DIR is missing"),
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err
    for argv, code in ((["sweep"], 2), (["sweep", "--help"], 0), (["sweep", "localisation", "--help"], 0)):
        assert main(argv) == code
        shown = capsys.readouterr().out
        assert shown.startswith("usage: has-dali sweep TASK") and all(task in shown for task in TASKS)


def test_a_real_sweep_goes_on_where_it_stands(
    squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "sweep", "localisation", "--recipe", "small", "--data", str(squares_folder), "--out", str(tmp_path / "out"),
        "--arms", "conv1-11", "--seeds", "1", "--loader.size", "21", "--loader.resize", "24", "--loader.batch_size=16",
        "--loader.held_out", "4", "--model.width", "0.25", "--trainer.max_epochs", "2", "--loader.threads", "1",
    ]  # fmt: skip
    assert main(argv) == 0
    report = tmp_path / "out" / "conv1-11" / "seed-0" / "report.json"
    content, written = json.loads(report.read_text()), report.stat().st_mtime_ns
    assert (content["table"], content["method"]) == (None, None)  # smallnet's, beside AlexNet's
    assert content["settings"]["hide"]["patch_sizes"] == [2]  # 11 of 55 where 21 pixels give 11
    shown = capsys.readouterr().out
    assert f"{content['metrics']['last']['top1']:.2f}" in shown and "58.33" in shown
    assert main(argv) == 0
    assert report.stat().st_mtime_ns == written and capsys.readouterr().out == shown
    assert main([*argv, "--optim.lr", "0.2"]) == 2
    error = capsys.readouterr().err
    assert "holds another run" in error and "choose another --out" in error
