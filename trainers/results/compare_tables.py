"""A comparison as tables, for the terminal and as Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from has_dali.console import Terminal

if TYPE_CHECKING:
    from has_dali.trainers.results.compare import Comparison, Line, Pair, Printed, Summary

_NONE, _OTHER_DATA = "-", "*"
_EVALUATION = {"last": "at the end of training", "best": "best evaluation, chosen on the validation set"}
_NOT_PERCENT = ("loss", "mae")


@dataclass(frozen=True)
class Table:
    """Rows of text; a row whose cells after the first are all empty heads the rows below it."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def show(terminal: Terminal, comparison: Comparison, metrics: Sequence[str] | None = None) -> None:
    """Print the tables and the remarks.

    Args:
        terminal: where to.
        comparison: from ``compare``.
        metrics: names of the metrics to print; None: all.
    """
    for table in tables(comparison, metrics):
        terminal.table(table.title, table.columns, table.rows, table.note)
    for note in comparison.notes:
        terminal.say(f"note: {note}")


def to_markdown(comparison: Comparison, metrics: Sequence[str] | None = None) -> str:
    """The same tables as GitHub Markdown, headings of level 3; ends with a newline."""
    parts = []
    for table in tables(comparison, metrics):
        lines = [_markdown_row(table.columns), "|---|" + "---:|" * (len(table.columns) - 1)]
        for row in table.rows:
            heads = not any(row[1:])
            lines.append(_markdown_row((f"**{row[0]}**", *row[1:]) if heads else tuple(cell.strip() for cell in row)))
        parts += [f"### {table.title}", "\n".join(lines)]
        parts += [table.note.replace(_OTHER_DATA, "\\" + _OTHER_DATA)] if table.note else []
    parts += ["\n".join(f"- {note}" for note in comparison.notes)] if comparison.notes else []
    return "\n\n".join(parts) + "\n"


def tables(comparison: Comparison, metrics: Sequence[str] | None = None) -> list[Table]:
    """Two tables per task, data set and recipe: results beside the paper's, and differences from the baseline.

    Raises:
        ValueError: no run has one of ``metrics``.
    """
    known = dict.fromkeys(line.metric for line in comparison.lines)
    for metric in metrics or ():
        if metric not in known:
            raise ValueError(f"metric {metric!r}: no run has it; there are {', '.join(known)}")
    found = []
    for block, group in itertools.groupby(comparison.lines, key=lambda line: line.arm.block):
        lines = list(group)
        order = [name for name in _in_order(lines) if metrics is None or name in metrics]
        if not order:
            continue
        title = _title(lines[0], comparison.which)
        found.append(_results(title, lines, order))
        pairs = [pair for pair in comparison.pairs if pair.arm.block == block and pair.metric in order]
        if pairs:
            found.append(_differences(title, pairs, order))
    return found


def _in_order(lines: Sequence[Line]) -> list[str]:
    """Metrics of the paper first, then the others as reported."""
    names = dict.fromkeys(line.metric for line in lines)
    printed = {line.metric for line in lines if line.printed is not None}
    return sorted(names, key=lambda name: name not in printed)


def _title(line: Line, which: str) -> str:
    first = line.arm.first
    data = first.dataset
    counts = [f"{data[key]:,} {what}" for key, what in _COUNTS if isinstance(data.get(key), int)]
    size = f" ({', '.join(counts)})" if counts else ""
    recipe = f", recipe {first.recipe}" if first.recipe else ""
    return f"{first.task} on {data.get('name', 'unnamed data')}{size}{recipe}: {_EVALUATION[which]}"


_COUNTS = (("train_images", "to train"), ("val_images", "to evaluate"), ("classes", "classes"))


def _results(title: str, lines: Sequence[Line], order: Sequence[str]) -> Table:
    rows: list[tuple[str, ...]] = []
    for metric in order:
        rows.append((metric, "", "", "", ""))
        own = [line for line in lines if line.metric == metric]
        for line in own:
            difference = _NONE if line.difference is None else _signed(line.difference, metric)
            cells = (_paper(line.printed, metric), _mean_std(line.ours, metric), difference, str(line.ours.count))
            rows.append((f"  {line.arm.label}", *cells))
        rows += [(f"  {name}", _NONE, value, _NONE, "") for name, value in _trivial(lines, metric)]
    columns = ("", "paper", "ours", "ours - paper", "seeds")
    return Table(title, columns, rows, _data_note([line.printed for line in lines if line.metric in order]))


def _trivial(lines: Sequence[Line], metric: str) -> Iterator[tuple[str, str]]:
    """Baselines that learn nothing, such as a fixed box, as the runs report them; once each."""
    seen = set()
    for line in lines:
        for report in line.arm.reports:
            for name, values in report.baselines.items():
                if metric in values and (name, values[metric]) not in seen:
                    seen.add((name, values[metric]))
                    yield f"{name} (nothing learned)", _number(values[metric], metric)


def _differences(title: str, pairs: Sequence[Pair], order: Sequence[str]) -> Table:
    rows: list[tuple[str, ...]] = []
    for metric in order:
        own = [pair for pair in pairs if pair.metric == metric]
        rows += [(metric, "", "", "", "", "")] if own else []
        for pair in own:
            interval = _NONE if pair.interval is None else " to ".join(_signed(end, metric) for end in pair.interval)
            each = " ".join(_signed(value, metric) for value in pair.differences.values())
            paper = _paper(pair.printed, metric, _signed)
            name = f"  {pair.arm.label} - {pair.baseline.label}"
            rows.append((name, paper, _signed(pair.mean, metric), interval, each, str(len(pair.differences))))
    columns = ("", "paper", "ours", "95 % interval", "by seed", "seeds")
    note = _data_note([pair.printed for pair in pairs])
    return Table(f"Paired by seed, {title}", columns, rows, note)


def _data_note(printed: Sequence[Printed | None]) -> str:
    others = sorted({item.dataset for item in printed if item is not None and not item.same_data})
    return f"{_OTHER_DATA} on the paper's own data, {', '.join(others)}: not the same experiment" if others else ""


def _paper(printed: Printed | None, metric: str, form: Any = None) -> str:
    if printed is None:
        return _NONE
    return (form or _number)(printed.value, metric) + ("" if printed.same_data else _OTHER_DATA)


def _mean_std(summary: Summary, metric: str) -> str:
    mean = _number(summary.mean, metric)
    return mean if summary.std is None else f"{mean} ± {_number(summary.std, metric)}"


def _number(value: float, metric: str) -> str:
    return f"{value:.{_digits(metric)}f}"


def _signed(value: float, metric: str) -> str:
    return f"{value:+.{_digits(metric)}f}"


def _digits(metric: str) -> int:
    return 3 if any(part in metric for part in _NOT_PERCENT) else 2


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
