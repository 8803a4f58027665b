"""Toy recipes: both arms are trained on rendered data, and their metrics and a figure shown. Runs are stood in for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.cli import main
from has_dali.console import Terminal
from has_dali.trainers.arguments import parse_run
from has_dali.trainers.sweeps import toy_run
from has_dali.trainers.sweeps.jobs import Job
from has_dali.trainers.tasks import TASKS, task_kind


@pytest.fixture
def jobs(runs: tuple[str, str], squares_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were asked for, finished with the runs at hand."""
    asked: list[Job] = []

    def run(some: Sequence[Job], parallel: int, terminal: Terminal, title: str) -> None:
        asked.extend(some)
        for job, folder in zip(some, runs, strict=True):
            shutil.copytree(folder, job.out)

    monkeypatch.setattr(toy_run, "run_jobs", run)
    monkeypatch.setattr(toy_run, "render_toy", lambda folder, seed: squares_folder)
    return asked


def test_both_arms_and_a_figure(
    jobs: list[Job], runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, found = tmp_path / "out", tmp_path / "found.json"
    argv = ["train", "localisation", "--recipe", "toy", "--out", str(out), "--seed", "3", "--json", str(found)]
    assert main([*argv, "--trainer.max_epochs", "7", "--optim.lr=0.02"]) == 0
    assert [job.out for job in jobs] == [out / "without-HaS", out / "with-HaS"]
    shown = capsys.readouterr().out
    content = json.loads(found.read_text())
    assert list(content["arms"]) == ["without HaS", "with HaS"]
    for run, name in zip(runs, content["arms"], strict=True):
        report = json.loads((Path(run) / "report.json").read_text())
        assert content["arms"][name] == report
        assert f"{report['metrics']['last']['gt_known']:.2f}" in shown and name in shown
    assert "centre box" in shown and f"figure: {out / 'figure.png'}" in shown
    with Image.open(content["figure"]) as image:
        assert (np.asarray(image.convert("RGB")) != 255).any(2).mean() > 0.05


@pytest.mark.parametrize("task", TASKS)
def test_the_arms_are_read_by_the_real_parser(task: str, jobs: list[Job], tmp_path: Path) -> None:
    argv = ["train", task, "--recipe", "toy", "--out", str(tmp_path / "out"), "--seed", "3", "--quiet"]
    assert main([*argv, "--trainer.max_epochs", "7"]) == 0
    parsed = [parse_run("has-dali train", job.command, task, task_kind(task).settings) for job in jobs]
    assert [run.settings.hide.method for run in parsed] == ["none", "has"]
    assert all((run.seed, run.trainer["max_epochs"], run.data is None) == (3, 7, False) for run in parsed)
    assert parsed[0].settings.optim == parsed[1].settings.optim
    assert (tmp_path / "out" / "figure.png").stat().st_size > 5000


def test_no_image_that_tells_the_arms_apart_is_no_failure(
    jobs: list[Job], runs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    straight = toy_run.localisation_figure

    def figure(some: list, images: object, count: int, failures: bool) -> object:
        asked.append(len(some))
        if len(some) > 1:
            raise ValueError("no image is located by one run and missed by the other")
        return straight(some, images, count, failures)

    monkeypatch.setattr(toy_run, "localisation_figure", figure)
    assert main(["train", "localisation", "--recipe", "toy", "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert asked == [2, 1] and (tmp_path / "out" / "figure.png").stat().st_size > 5000
