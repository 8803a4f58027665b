"""Scope ``train``: what a training step costs beside its arithmetic.

The same step with real data, without hiding, and on one batch held in memory, and the trainer around it: input stall,
cost of the augmentation and cost of the trainer, each with a 95 % confidence interval of its mean over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from has_dali.bench import train_step
from has_dali.bench.machine import data_facts
from has_dali.bench.results import Bar, Latency, Result, Row, Table
from has_dali.bench.timing import Interval, Summary
from has_dali.bench.train_step import BARE, LABELS, PLAIN, SYNTHETIC, TRAINER, StepReport
from has_dali.console import Terminal
from has_dali.pipelines.arrays import Source
from has_dali.pipelines.sources import folder_source
from has_dali.trainers.arguments import RunOptions, parse_run
from has_dali.trainers.result_commands import count, taken
from has_dali.trainers.tasks import TASKS, task_kind

NAME = "train"
USAGE = """usage: has-dali bench train [DATA] [--networks NAME,NAME] [--batch N] [--size N] [--rounds N] [--steps N]
       has-dali bench train TASK --recipe NAME --data DIR [--rounds N] [--steps N] [--GROUP.OPTION VALUE ...]

Seconds of a training step: has-dali train, a bare PyTorch loop on the same loader, that loop without hiding, and that
loop on one batch held in memory. DATA: one folder of images per class (an embedded corpus without it).

  --networks   torchvision or timm classifiers (resnet18,resnet50)
  --batch      images per step (16; on a GPU 256)
  --size       pixels of a side (128; on a GPU 224)
  --rounds     turns of each way (5)
  --steps      steps of a turn that count (3; on a GPU or with a recipe 30)
  --quick      fewer and shorter turns
  --json FILE  --markdown FILE  --plot FILE  --quiet
"""
_VALUES = ("--networks", "--batch", "--size", "--rounds", "--steps", "--json", "--markdown", "--plot")
_FLAGS = ("--quick", "--quiet")
_FIGURES = {SYNTHETIC: "input_stall", PLAIN: "cost_of_hiding", TRAINER: "cost_of_trainer"}
CONDITIONS = (
    "ways measured in turns; each turn is the mean of some steps after a few that do not count; median of the turns;"
    " every way has a network of its own with the same first weights"
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; ``runs`` holds what is timed.

    Raises:
        ValueError: an option is unknown or out of range.
        SystemExit: --help.
    """
    if any(word in ("-h", "--help") for word in argv):
        Terminal().say(USAGE)
        raise SystemExit(0)
    flags = {name: name in argv for name in _FLAGS}
    own, words = taken([NAME, *(word for word in argv if word not in _FLAGS)], _VALUES)
    words = words[1:]
    recipe_mode = bool(words) and (words[0] in TASKS or "--recipe" in words)
    rounds = count("--rounds", own.get("--rounds", "3" if flags["--quick"] else "5"))
    usual = "30" if recipe_mode or torch.cuda.is_available() else "3"
    steps = count("--steps", own.get("--steps", "1" if flags["--quick"] else usual))
    data: Path | None
    if recipe_mode:
        if words[0].startswith("-"):
            raise ValueError(f"TASK is missing: {' or '.join(TASKS)} comes first")
        runs = [parse_run("has-dali bench train", words, words[0], task_kind(words[0]).settings)]
        if runs[0].data is None:
            raise ValueError("--data DIR is missing: a step is timed on real images")
        data = runs[0].data
    else:
        if len(words) > 1 or (words and words[0].startswith("-")):
            raise ValueError(f"{words[-1]}: expected at most one DATA; recipe options need TASK and --recipe")
        usual_job = ("256", "224") if torch.cuda.is_available() else ("16", "128")
        batch, size = (
            count(name, own.get(name, most)) for name, most in zip(("--batch", "--size"), usual_job, strict=True)
        )
        runs = [_classifier_run(name, batch, size) for name in own.get("--networks", "resnet18,resnet50").split(",")]
        data = Path(words[0]) if words else None
    files = {name: Path(own[f"--{name}"]) if f"--{name}" in own else None for name in ("json", "markdown", "plot")}
    return argparse.Namespace(
        runs=runs, data=data, rounds=rounds, steps=steps, quick=flags["--quick"], quiet=flags["--quiet"], **files
    )


def _classifier_run(network: str, batch: int, size: int) -> RunOptions:
    settings = ["--model.name", network, "--loader.batch_size", str(batch), "--loader.size", str(size)]
    words = ["classification", "--recipe", "folder", *settings, "--loader.held_out", "0"]
    return parse_run("has-dali bench train", words, "classification", task_kind("classification").settings)


def run(options: argparse.Namespace, terminal: Terminal) -> Result:
    """Time every run of ``options``.

    Raises:
        OSError, ValueError: the data are missing or do not fit.
    """
    settings = {
        "rounds": options.rounds,
        "steps": options.steps,
        "runs": [{"task": one.task, "recipe": one.recipe.name, "settings": _plain(one)} for one in options.runs],
    }
    result = Result(NAME, "Training step", CONDITIONS, settings)
    with tempfile.TemporaryDirectory(prefix="has_dali_bench_") as scratch:
        data, source = _data_set(options.data, options.runs[0], Path(scratch))
        result.data = data_facts(source, options.data.name if options.data else "embedded corpus")
        total = options.rounds * len(LABELS) * len(options.runs)
        with terminal.progress("timing steps", total) as advance:
            for one in options.runs:
                report = train_step.measure(one, data, options.rounds, options.steps, advance)
                table = report_table(report, one)
                result.tables.append(table)
                result.bars += report_bars(report, table.title)
    return result


def _data_set(data: Path | None, options: RunOptions, scratch: Path) -> tuple[Path, Source]:
    """The folder that a task reads and the images that it trains on; a folder of class folders becomes its train and
    val, as nothing is validated.
    """
    if data is None:
        from has_dali.pipelines.corpus import ensure_corpus

        data = ensure_corpus()
    if options.task == "classification" and data.is_dir() and not (data / "train").is_dir():
        try:
            source = folder_source(data)
        except FileNotFoundError:
            pass  # another layout: the task tells it, or says what it expected
        else:
            for part in ("train", "val"):
                (scratch / part).symlink_to(data.resolve(), target_is_directory=True)
            return scratch, source
    return data, task_kind(options.task).open_data(data, options.settings).train


def report_table(report: StepReport, options: RunOptions) -> Table:
    """One row per way, in milliseconds a step; ratios are to the bare loop."""
    settings = options.settings
    parameters = {"network": settings.model.name, "batch_size": report.batch_size, "size": settings.loader.size}
    title = f"{settings.model.name}, batch {report.batch_size}, {settings.loader.size} x {settings.loader.size}"
    table = Table(f"step-{settings.model.name}", title, "ms/step", "lower", BARE, parameters)
    for name, label in LABELS.items():
        summary = report.steps[name]
        row = Row(name, label, "bound" if name == SYNTHETIC else "ours")
        row.value = Summary(tuple(1000 * value for value in summary.values))
        durations = report.durations.get(name)
        row.latency = Latency.of(durations) if durations else None
        row.extra = {"images_per_second": report.batch_size / summary.median}
        interval = _interval(report, name)
        if interval is not None:
            row.extra[_FIGURES[name]] = interval.to_dict()
        table.rows.append(row)
    table.fill_ratios()
    table.note = (
        f"input stall (1 - held in memory / real data) {percent(stall(report))};"
        f" cost of hiding {percent(cost(report, BARE, PLAIN))};"
        f" cost of the trainer {percent(cost(report, TRAINER, BARE))};"
        f" the trainer itself waited {report.input_stall.median:.2%} of its time for batches"
    )
    return table


def _interval(report: StepReport, name: str) -> Interval | None:
    """Mean and interval of what a way is there to show."""
    figures = {SYNTHETIC: stall(report), PLAIN: cost(report, BARE, PLAIN), TRAINER: cost(report, TRAINER, BARE)}
    return Interval.of(figures[name]) if name in figures else None


def report_bars(report: StepReport, title: str) -> list[Bar]:
    """What the loader and the trainer may cost, each with the interval of its mean.

    The input stall has a bar on a GPU only: on a CPU decoding takes its share of the cores that train, however far
    ahead it is; what can be asked there is that the loop never waits.
    """
    figures = (
        ("share of the time that the trainer waits for batches", report.input_stall, 0.01),
        *([("input stall", stall(report), 0.01)] if torch.cuda.is_available() else []),
        ("cost of hiding", cost(report, BARE, PLAIN), 0.01),
        ("cost of the trainer", cost(report, TRAINER, BARE), 0.03),
    )
    return [
        Bar(f"{title}: {what}", value, at_most=most, note=percent(value), interval=Interval.of(value))
        for what, value, most in figures
    ]


def stall(report: StepReport) -> Summary:
    """Share of the step that goes once the batch is in memory already, by round."""
    return Summary(tuple(1 - 1 / value for value in report.ratio(BARE, SYNTHETIC).values))


def cost(report: StepReport, dear: str, cheap: str) -> Summary:
    """Time of one way on top of another's, as a share of the latter, by round."""
    return Summary(tuple(value - 1 for value in report.ratio(dear, cheap).values))


def percent(summary: Summary) -> str:
    """The mean of a share and its interval, as people read them."""
    interval, mean = Interval.of(summary), statistics.fmean(summary.values)
    if interval is None:
        return f"{mean:+.1%} (one round: no confidence interval)"
    return f"{mean:+.1%} (95 % CI {interval.low:+.1%} to {interval.high:+.1%})"


def _plain(options: RunOptions) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(options.settings)
