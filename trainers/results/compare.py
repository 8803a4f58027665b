"""Runs beside the paper and beside one another: what ``has-dali compare`` computes.

Runs that differ in their seed alone form an *arm*. An arm is summarised over its seeds and put beside the paper's
row; an arm that hides something is also paired, seed by seed, with the arm that differs from it in hiding nothing.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from has_dali.trainers.metrics.paired import Interval, t_interval
from has_dali.trainers.results import paper
from has_dali.trainers.results.compare_tables import show, to_markdown
from has_dali.trainers.results.read_reports import Report, Which, read_reports

__all__ = ["Arm", "Comparison", "Line", "Pair", "Printed", "Summary", "compare", "show", "to_markdown"]

# Settings that change how a run is computed, not what it computes; and what names the row instead of the run.
_WITHOUT_EFFECT = frozenset({"seed", "seed_everything", "threads", "prefetch", "eval_batch_size", "device"})
_NAMING, _HIDING = "paper.", "hide."
# Settings of hiding that a method does not look at; "none" looks at none.
_UNUSED = {
    "random-erasing": ("preset", "patch_sizes", "p_apply", "random_offset"),
    "pixel-dropout": ("preset", "patch_sizes"),
}


@dataclass(frozen=True)
class Summary:
    """A metric over seeds; ``std`` is the sample standard deviation, None for one run."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """Summary of at least one value."""
        numbers = list(values)
        return cls(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


@dataclass(frozen=True)
class Printed:
    """A number of the paper; ``same_data`` tells whether our run used the data set it was measured on."""

    value: float
    dataset: str
    same_data: bool


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone, one per seed; ``label`` tells the arm from the others of its block."""

    reports: tuple[Report, ...]
    label: str
    config: Mapping[str, Any]

    @property
    def first(self) -> Report:
        """The run with the lowest seed; what is not a result is the same in all of them."""
        return self.reports[0]

    @property
    def block(self) -> tuple[str, str, str | None]:
        """Task, data set and recipe: arms that agree in these are shown together."""
        return self.first.task, _canonical(self.first.dataset), self.first.recipe

    @property
    def hides(self) -> bool:
        """Whether anything is hidden from the network in training."""
        return self.config.get("hide.method", "none") != "none"

    def values(self, metric: str, which: Which) -> dict[int, float]:
        """The metric by seed; seeds that lack it are absent."""
        found = ((report.seed, report.metrics(which).get(metric)) for report in self.reports)
        return {seed: value for seed, value in found if value is not None}


@dataclass(frozen=True)
class Line:
    """One metric of one arm beside the paper's number."""

    arm: Arm
    metric: str
    ours: Summary
    printed: Printed | None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.printed is None else self.ours.mean - self.printed.value


@dataclass(frozen=True)
class Pair:
    """One metric of an arm minus that of its baseline, per common seed.

    ``interval`` is Student's 95 % interval of the mean difference, None for one seed; ``printed`` the same difference
    between the paper's rows.
    """

    arm: Arm
    baseline: Arm
    metric: str
    differences: Mapping[int, float]
    interval: Interval | None
    printed: Printed | None

    @property
    def mean(self) -> float:
        """Mean difference over the common seeds."""
        return statistics.fmean(self.differences.values())


@dataclass(frozen=True)
class Comparison:
    """Everything ``show`` and ``to_markdown`` print: lines and pairs in the order of the arms, and remarks."""

    which: Which
    arms: tuple[Arm, ...]
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


def compare(paths: Iterable[Path | str], which: Which = "last") -> Comparison:
    """Compare all runs whose reports lie at or below ``paths``.

    Args:
        paths: report files, run folders, or folders of run folders.
        which: "last": the metrics at the end of training; "best": those of the best evaluation, which are chosen on
            the validation set and so read a little high.

    Raises:
        OSError: a path does not exist.
        ValueError: a folder holds no report, a report cannot be used, or ``which`` is another word.
    """
    if which not in ("last", "best"):
        raise ValueError(f"which={which!r}: expected last or best")
    notes: list[str] = []
    arms = _arms(read_reports(paths), notes)
    lines = [line for arm in arms for line in _lines(arm, which)]
    if not lines:
        raise ValueError(f"none of the {len(arms)} reports holds a finite metric of the {which} evaluation")
    pairs = [pair for arm in arms if arm.hides for pair in _pairs(arm, arms, which, notes)]
    return Comparison(which, tuple(arms), tuple(lines), tuple(pairs), tuple(notes))


def _arms(reports: Iterable[Report], notes: list[str]) -> list[Arm]:
    groups: dict[tuple[Any, ...], dict[int, Report]] = {}
    for report in sorted(reports, key=lambda report: report.started):
        key = (report.task, _canonical(report.dataset), report.recipe or "", report.table or "", report.method or "")
        seeds = groups.setdefault((*key, _canonical(_config(report))), {})
        if report.seed in seeds:
            notes.append(f"seed {report.seed} was run twice: {report.file} counts, {seeds[report.seed].file} does not")
        seeds[report.seed] = report
    found = [tuple(seeds[seed] for seed in sorted(seeds)) for _, seeds in sorted(groups.items(), key=_printed_order)]
    configs = [_config(reports[0]) for reports in found]
    labels = [_label(i, found, configs) for i in range(len(found))]
    # The paper repeats some rows, such as AlexNet-GAP, in several tables.
    tables = [
        reports[0].table if labels.count(label) > 1 else None for label, reports in zip(labels, found, strict=True)
    ]
    labels = [f"{label}, table {table}" if table else label for label, table in zip(labels, tables, strict=True)]
    return [Arm(*parts) for parts in zip(found, labels, configs, strict=True)]


def _printed_order(item: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """Blocks together; within one the paper's order of rows, then the rest by name."""
    *block, table, method, config = item[0]
    place = (i for i, row in enumerate(paper.ROWS) if row.table == table and row.method == method)
    return (*block, next(place, len(paper.ROWS)), table, method, config)


def _label(index: int, found: list[tuple[Report, ...]], configs: list[dict[str, Any]]) -> str:
    """The row's name; where others of the block share it, with the settings that tell them apart."""
    own = found[index][0]
    name = own.method or own.recipe or own.task

    def place(report: Report) -> tuple[Any, ...]:
        return report.task, _canonical(report.dataset), report.recipe, report.method, report.method and report.table

    twins = [config for reports, config in zip(found, configs, strict=True) if place(reports[0]) == place(own)]
    own_config = configs[index]
    # A twin that hides nothing lacks the settings of hiding: that is no difference beside its method.
    keys = [key for key, value in own_config.items() if any(twin.get(key, value) != value for twin in twins)]
    if not keys:
        return name
    return f"{name} ({', '.join(f'{key}={_brief(own_config[key])}' for key in keys)})"


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _lines(arm: Arm, which: Which) -> Iterator[Line]:
    for metric in dict.fromkeys(name for report in arm.reports for name in report.metrics(which)):
        yield Line(arm, metric, Summary.of(arm.values(metric, which).values()), _printed(arm, metric))


def _pairs(arm: Arm, arms: list[Arm], which: Which, notes: list[str]) -> Iterator[Pair]:
    rivals = [other for other in arms if other.block == arm.block and not other.hides]
    if not rivals:
        return
    baseline = min(rivals, key=lambda other: (len(_differing(arm, other)), other.first.table != arm.first.table))
    differing = _differing(arm, baseline)
    if differing:
        notes.append(f"{arm.label} has no baseline: {baseline.label} also differs in {', '.join(differing)}")
        return
    common = {report.seed for report in arm.reports} & {report.seed for report in baseline.reports}
    if not common:
        notes.append(f"{arm.label} and its baseline {baseline.label} have no seed in common")
    for metric in dict.fromkeys(name for report in arm.reports for name in report.metrics(which)):
        ours, theirs = arm.values(metric, which), baseline.values(metric, which)
        differences = {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}
        if differences:
            interval = t_interval(list(differences.values()))
            yield Pair(arm, baseline, metric, differences, interval, _printed_gain(arm, baseline, metric))


def _differing(arm: Arm, other: Arm) -> list[str]:
    """Settings apart from hiding in which two arms differ."""
    keys = sorted(key for key in {*arm.config, *other.config} if not key.startswith(_HIDING))
    return [key for key in keys if arm.config.get(key) != other.config.get(key)]


def _printed(arm: Arm, metric: str) -> Printed | None:
    """The paper's number for an arm: that of its data set, or else the only one there is for this row and metric."""
    first = arm.first
    rows = [row for row in paper.ROWS if row.method == first.method and first.table in (None, row.table)]
    rows = [row for row in rows if metric in row.metrics]
    for row in rows:
        if paper.is_dataset(row.dataset, first.dataset):
            return Printed(row.metrics[metric], row.dataset, True)
    if len({(row.dataset, row.metrics[metric]) for row in rows}) == 1:
        return Printed(rows[0].metrics[metric], rows[0].dataset, False)
    return None


def _printed_gain(arm: Arm, baseline: Arm, metric: str) -> Printed | None:
    ours, theirs = _printed(arm, metric), _printed(baseline, metric)
    if ours is None or theirs is None or ours.dataset != theirs.dataset:
        return None
    return Printed(ours.value - theirs.value, ours.dataset, ours.same_data)


def _config(report: Report) -> dict[str, Any]:
    """Settings that bear on the result, by dotted name; where nothing is hidden, how it would be does not count."""
    config = {
        key: value
        for key, value in _flat({**report.settings, "trainer": report.trainer})
        if key.rpartition(".")[2] not in _WITHOUT_EFFECT
    }
    config = {key: value for key, value in config.items() if not key.startswith(_NAMING)}
    for name in _UNUSED.get(config.get("hide.method", ""), ()):
        config.pop(f"{_HIDING}{name}", None)
    if config.get("hide.method") == "none":
        config = {key: value for key, value in config.items() if not key.startswith(_HIDING) or key == "hide.method"}
    return config if report.epochs is None or report.trainer else {**config, "epochs": report.epochs}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
