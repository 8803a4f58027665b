"""Recipes that render their own data: every arm trained, metrics side by side, and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from has_dali.console import Terminal
from has_dali.kernels.threads import available_cores
from has_dali.trainers.arguments import RunOptions, flattened
from has_dali.trainers.figures.draw import run_curves
from has_dali.trainers.figures.located import localisation_figure
from has_dali.trainers.figures.style import save_png
from has_dali.trainers.results.report import read_report
from has_dali.trainers.results.runs import open_runs
from has_dali.trainers.results.tables import show_metrics
from has_dali.trainers.sweeps.jobs import Job, run_jobs
from has_dali.trainers.sweeps.toy import render_toy

_SHOWN_IMAGES = 8


def run_toy(options: RunOptions, terminal: Terminal) -> dict[str, Any]:
    """Render the data, train the recipe's arms at the same time, print their metrics, draw a figure.

    Args:
        options: of a recipe with ``data: toy`` and ``arms``.
        terminal: where the table goes.

    Returns:
        JSON-able: the reports by arm, and where the figure lies.
    """
    data = render_toy(options.out / "data", seed=options.seed)
    jobs = [_job(options, data, name, changes) for name, changes in options.recipe.arms.items()]
    run_jobs(jobs, min(len(jobs), available_cores()), terminal, f"training {len(jobs)} arms")
    reports = {job.name: read_report(job.out) for job in jobs}
    last = {name: report["metrics"]["last"] for name, report in reports.items()}
    title = f"{options.task}, {options.recipe.name}: after {reports[jobs[0].name]['epochs']} epochs"
    show_metrics(terminal, title, last, reports[jobs[0].name]["baselines"])
    figure = options.out / "figure.png"
    if options.task == "localisation":
        runs, images = open_runs([job.out for job in jobs], data, "cpu")
        try:
            drawn = localisation_figure(runs, images, _SHOWN_IMAGES, failures=False)
        except ValueError:  # after a short training no image may tell the runs apart
            drawn = localisation_figure(runs[-1:], images, _SHOWN_IMAGES, failures=False)
        save_png(drawn, figure)
    else:
        save_png(run_curves([job.out for job in jobs], "top1"), figure)
    terminal.say(f"figure: {figure}; reports: {options.out}/*/report.json")
    return {"arms": reports, "figure": figure}


def _job(options: RunOptions, data: Path, name: str, changes: Mapping[str, Any]) -> Job:
    words = []
    for option, value in flattened(dict(changes)).items():
        words += [f"--{option}", str(value)]
    argv = [options.task, "--recipe", options.recipe.name, "--data", str(data), "--seed", str(options.seed)]
    return Job(name, (*argv, *options.overrides, *words), options.out / name.replace(" ", "-"))
