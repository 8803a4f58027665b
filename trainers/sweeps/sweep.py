"""``has-dali sweep``: the paper's ablation tables at any scale, several seeds each, beside the paper's numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from has_dali.console import Terminal
from has_dali.trainers.arguments import RunOptions
from has_dali.trainers.results import paper
from has_dali.trainers.results.report import REPORT, read_report
from has_dali.trainers.sweeps.arms import ARMS, Arm, Scale
from has_dali.trainers.sweeps.jobs import Job, run_jobs
from has_dali.trainers.tasks import task_kind

# Of these, what the data has: boxes or masks. The paper's CIFAR numbers are those of the best epoch.
METRICS = {"localisation": ("gt_known", "top1_loc", "pxap", "top1"), "classification": ("top1", "best top1")}
_NETWORKS = {"alexnet_gap": "AlexNet", "googlenet_gap": "GoogLeNet"}
_TITLES = {
    "II": "Table II: patch sizes",
    "III": "Table III: pixel dropout",
    "IV": "Table IV: average and maximum pooling",
    "V": "Table V: hiding the first maps",
    "VI": "Table VI: hiding probability",
    "VIII": "Table VIII: classification",
    "peer": "Beside the tables: peers",
}


@dataclass(frozen=True)
class SweepRow:
    """One row of a table: an arm over its seeds, and what the paper has there."""

    table: str
    method: str
    arm: Arm
    values: dict[str, list[float]]
    printed: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        names = {"table": self.table, "method": self.method, "arm": self.arm.name}
        return {**names, "values": self.values, "paper": self.printed}


def sweep(
    options: RunOptions,
    data: Path,
    seeds: int,
    tables: Sequence[str] | None,
    names: Sequence[str] | None,
    parallel: int,
    terminal: Terminal,
) -> list[SweepRow]:
    """Run every arm of the tables with every seed, and print the tables.

    Args:
        options: recipe and settings that all arms share.
        data: the data set.
        seeds: runs per arm, with seeds 0, 1, ...
        tables: which tables; None: all of the task.
        names: which arms; None: all of the tables.
        parallel: runs at a time.
        terminal: where tables go.
    """
    arms = ARMS[options.task](scale_of(options), _NETWORKS.get(options.settings.model.name, "AlexNet"))
    known = sorted({table for arm in arms for table, _ in arm.rows})
    for table in tables or ():
        if table not in known:
            raise ValueError(f"--tables {table}: {options.task} has {', '.join(known)}")
    unknown = sorted(set(names or ()) - {arm.name for arm in arms})
    if unknown:
        raise ValueError(f"--arms {unknown[0]}: {options.task} has {', '.join(arm.name for arm in arms)}")
    wanted = [arm for arm in arms if names is None or arm.name in names]
    chosen = [arm for arm in wanted if tables is None or any(table in tables for table, _ in arm.rows)]
    if not chosen:
        raise ValueError(f"--arms {','.join(names or ())}: none of them is in --tables {','.join(tables or ())}")
    jobs = [_job(options, data, arm, seed) for seed in range(seeds) for arm in chosen]
    try:
        run_jobs(jobs, parallel, terminal, f"{len(chosen)} arms x {seeds} seeds")
    finally:  # after a failure too: what is finished is shown
        done = {arm for arm in chosen if all(_report(options, arm, seed).is_file() for seed in range(seeds))}
        rows = [
            _row(options, arm, table, method, seeds)
            for arm in chosen
            for table, method in arm.rows
            if arm in done and (tables is None or table in tables)
        ]
        if rows:
            show(terminal, options, rows)
    return rows


def scale_of(options: RunOptions) -> Scale:
    """Image side of a recipe and the side of its network's first maps."""
    size = options.settings.loader.size
    if options.task != "localisation":
        return Scale(size, 0)
    model: Any = task_kind(options.task).build_model(options.settings, 2, 0)
    with torch.inference_mode():
        return Scale(size, model.stem(torch.zeros(1, 3, size, size)).shape[-1])


def _job(options: RunOptions, data: Path, arm: Arm, seed: int) -> Job:
    argv = [options.task, "--recipe", options.recipe.name, "--data", str(data), "--seed", str(seed)]
    table, method = arm.rows[0]
    # Another network stands beside the paper's rows in our tables, but is none of them.
    theirs = options.task == "classification" or options.settings.model.name in _NETWORKS
    row = ["--paper.table", table, "--paper.method", method] if theirs and table != "peer" else []
    return Job(
        f"{arm.name} seed {seed}", (*argv, *options.overrides, *arm.options, *row),
        options.out / arm.name / f"seed-{seed}",
    )  # fmt: skip


def _report(options: RunOptions, arm: Arm, seed: int) -> Path:
    return options.out / arm.name / f"seed-{seed}" / REPORT


def _row(options: RunOptions, arm: Arm, table: str, method: str, seeds: int) -> SweepRow:
    reports = [read_report(_report(options, arm, seed)) for seed in range(seeds)]
    found = [
        {**report["metrics"]["last"], **{f"best {name}": value for name, value in report["metrics"]["best"].items()}}
        for report in reports
    ]
    names = [name for name in METRICS[options.task] if all(name in metrics for metrics in found)]
    values = {name: [metrics[name] for metrics in found] for name in names}
    printed: dict[str, float] = {}
    metric = options.settings.paper.metric or ""
    for row in paper.rows(table, method):
        if table != "VIII":
            printed |= row.metrics
        elif paper.is_dataset(row.dataset, reports[0]["dataset"]) and metric in row.metrics:
            printed["best top1"] = row.metrics[metric]
    return SweepRow(table, method, arm, values, printed)


def show(terminal: Terminal, options: RunOptions, rows: Sequence[SweepRow]) -> None:
    """The tables: ours (mean and standard deviation over seeds) and the paper's, which is another data set's."""
    names = [name for name in METRICS[options.task] if all(name in row.values for row in rows)]
    for table in dict.fromkeys(row.table for row in rows):
        part = [row for row in rows if row.table == table]
        lines = []
        for row in part:
            cells = [row.method, row.arm.name]
            for name in names:
                cells += [spread(row.values[name]), f"{row.printed[name]:.2f}" if name in row.printed else ""]
            lines.append(cells)
        columns = ["the paper's row", "arm", *(part for name in names for part in (name, "paper"))]
        terminal.table(_TITLES[table], columns, lines)
    terminal.say(
        f"ours: {options.recipe.name}, mean +- standard deviation over seeds; the paper's are of its own data;"
        f" runs: {options.out}"
    )


def spread(values: Sequence[float]) -> str:
    """Mean and, of several values, their sample standard deviation."""
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} +- {statistics.stdev(values):.2f}" if len(values) > 1 else mean
