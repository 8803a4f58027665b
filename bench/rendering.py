"""Results as tables on the terminal and as Markdown: the same cells in both, losses and gaps shown like the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from has_dali.bench.results import RATIO, UNSTABLE_IQR, Bar, Result, Row, Table
from has_dali.bench.timing import Summary
from has_dali.console import Terminal

BAR_COLUMNS = ("bar", "reached", "IQR", "asked", "aim", "met")
_WIDEST_NUMBER = 100_000


def show(terminal: Terminal, result: Result) -> None:
    """Print a result: every table, what was not measured and why, the bars, how it was measured."""
    for table in result.tables:
        columns, rows = table_cells(table)
        terminal.table(f"{result.title}: {table.title}", columns, rows, "\n".join(table_notes(table)))
    if result.bars:
        terminal.table("Bars", BAR_COLUMNS, [bar_cells(bar) for bar in result.bars], "\n".join(bar_notes(result.bars)))
    terminal.say(result.conditions)


def markdown(result: Result, level: int = 2) -> str:
    """The same as Markdown, under a heading of the given level."""
    lines = [f"{'#' * level} {result.title}", "", _sentence(result.conditions), ""]
    for table in result.tables:
        lines += [f"{'#' * (level + 1)} {table.title}", "", *table_markdown(table), ""]
    if result.bars:
        lines += [f"{'#' * (level + 1)} Bars", "", *bars_markdown(result.bars), ""]
    return "\n".join(lines).rstrip() + "\n"


def table_markdown(table: Table) -> list[str]:
    """The lines of a table and its notes."""
    columns, rows = table_cells(table)
    notes = table_notes(table)
    return [*markdown_table(columns, rows), *([""] if notes else []), *(f"- {escaped(note)}" for note in notes)]


def bars_markdown(bars: Sequence[Bar]) -> list[str]:
    """The lines of the table of bars and its notes."""
    notes = bar_notes(bars)
    lines = markdown_table(BAR_COLUMNS, [bar_cells(bar) for bar in bars])
    return [*lines, *([""] if notes else []), *(f"- {escaped(note)}" for note in notes)]


def table_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table, the fastest first and what was not measured last; cells are plain text."""
    axis = [axis_name(table)] if is_sweep(table) else []
    columns = ["", *axis, table.unit, "IQR", "p99 ms/step", "ratio", "IQR of ratio", ""]
    return columns, [_cells(table, row) for row in ordered(table)]


def ordered(table: Table) -> list[Row]:
    """Measured rows from fast to slow (of a sweep: as they are), then the others."""
    measured = [row for row in table.rows if row.value is not None]
    if not is_sweep(table):
        measured.sort(key=lambda row: row.value.median if row.value else 0.0, reverse=table.better == "higher")
    return [*measured, *(row for row in table.rows if row.value is None)]


def is_sweep(table: Table) -> bool:
    """Whether its rows have a place on an axis."""
    return any("x" in row.extra for row in table.rows)


def axis_name(table: Table) -> str:
    """What a sweep varies."""
    return str(table.parameters.get("x", "x")).replace("_", " ")


def verdict(table: Table, row: Row) -> str:
    """What a row is: the baseline, a bound, or a win, a loss or a draw of ours against a peer; or its status.

    A win or a loss needs three of four rounds; between them is a draw.
    """
    baseline = table.row(table.baseline)
    if row.value is None:
        return row.status
    if row.key == table.baseline:
        return "baseline"
    if row.kind == "bound":
        return "bound"
    if baseline is None or row.ratio is None or (row.kind == "ours") == (baseline.kind == "ours"):
        return ""
    if row.extra.get("x") != baseline.extra.get("x") or "bound" in (row.kind, baseline.kind):
        return ""  # another job
    first, third = row.ratio.quartiles
    if row.kind == "ours":  # the ratio is the baseline's lead over us
        first, third = 1 / third, 1 / first
    return "win" if first > 1 else "loss" if third < 1 else "draw"


def table_notes(table: Table) -> list[str]:
    """What must be said under a table: its note, what the ratio is, unstable rows, rows without a figure and why."""
    notes = [table.note] if table.note else []
    baseline = table.row(table.baseline)
    if baseline is not None and len(table.rows) > 1:
        speed = (
            f"speed of {_named(table, baseline)} over the row's, round by round; below 1.00x the row is the faster one"
        )
        notes.append(f"ratio: {table.parameters.get(RATIO, speed)}")
    unstable = [_named(table, row) for row in table.rows if row.unstable]
    if unstable:
        notes.append(
            f"unstable (IQR above {UNSTABLE_IQR:.0%} of the median), repeat on an idle machine: {', '.join(unstable)}"
        )
    notes += [f"{row.label}: {row.status}: {row.reason}" for row in table.rows if row.value is None]
    return notes


def bar_cells(bar: Bar) -> list[str]:
    """One row of the table of bars."""
    at_least = bar.at_least is not None
    asked = [f">= {bar.at_least:g}"] if bar.at_least is not None else []
    asked += [f"<= {bar.at_most:g}"] if bar.at_most is not None else []
    aim = "" if bar.aim is None else f"{'>=' if at_least else '<='} {bar.aim:g}"
    if bar.value is None:
        return [bar.what, "", "", ", ".join(asked), aim, "not measured"]
    met = "aim" if bar.met and bar.aim_met else "yes" if bar.met else "NO"
    if bar.resolved is False:
        met = "not resolved"
    return [bar.what, figure(bar.value.median), spread_of(bar.value), ", ".join(asked), aim, met]


def bar_notes(bars: Sequence[Bar]) -> list[str]:
    """What limits a bar, why it was not measured, or the interval that decides nothing."""
    notes = [f"{bar.what}: {bar.note}" for bar in bars if bar.note]
    return notes + [
        f"{bar.what}: not resolved: what is asked lies within the 95 % confidence interval of the mean,"
        f" {figure(bar.interval.low)} to {figure(bar.interval.high)}; more rounds would narrow it"
        for bar in bars
        if bar.interval is not None and bar.resolved is False
    ]


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Settings as "name value" in one line; what is nested, in brackets."""
    return ", ".join(f"{name.replace('_', ' ')} {_setting(value)}" for name, value in settings.items())


def figure(value: float) -> str:
    """A number with three digits that count, or all before the point; thousands are grouped."""
    size = abs(value)
    if size >= _WIDEST_NUMBER or size >= 100 or (float(value).is_integer() and size >= 1):
        return f"{value:,.0f}"
    if size == 0:
        return "0"
    if size < 1e-4:
        return f"{value:.2e}"
    decimals = 2 if size >= 1 else next(d for d in range(2, 8) if size >= 10 ** (1 - d) or d == 7) + 1
    return f"{value:.{1 if size >= 10 else decimals}f}"


def spread_of(value: Summary) -> str:
    """The quartiles as "first-third"; empty when there is a single round."""
    if len(value.values) < 2:
        return ""
    return "-".join(figure(quartile) for quartile in value.quartiles)


def relative_iqr(value: Summary) -> str:
    """The interquartile range in percent of the median; empty when there is a single round."""
    if len(value.values) < 2 or not value.median:
        return ""
    return f"{100 * value.iqr / abs(value.median):.1f}%"


def times(value: Summary) -> str:
    """A ratio as people read it."""
    median = value.median
    return f"{median:.2f}x" if 0.095 <= median < 100 else f"{figure(median)}x"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    """Lines of a table whose first ``texts`` columns are text and whose others are numbers."""
    head = " | ".join(escaped(column) for column in columns)
    rule = " | ".join("---" if i < texts else "---:" for i in range(len(columns)))
    return [f"| {head} |", f"| {rule} |", *(f"| {' | '.join(map(escaped, row))} |" for row in rows)]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\|*_`<[]#" else " " if letter == "\n" else letter for letter in text)


def _named(table: Table, row: Row) -> str:
    """The row's label; in a sweep with its place, unless the label says it."""
    place = row.extra.get("x")
    if place is None or not is_sweep(table) or str(place) in row.label:
        return row.label
    return f"{row.label} at {axis_name(table)} {figure(place)}"


def _cells(table: Table, row: Row) -> list[str]:
    place = [figure(row.extra["x"]) if "x" in row.extra else ""] if is_sweep(table) else []
    if row.value is None:
        return [row.label, *place, "", "", "", "", "", row.status]
    ratio = row.ratio if row.key != table.baseline else None
    return [
        row.label,
        *place,
        figure(row.value.median),
        relative_iqr(row.value),
        "" if row.latency is None or row.latency.resolved_p99 is None else figure(row.latency.resolved_p99),
        "" if ratio is None else times(ratio),
        "" if ratio is None else spread_of(ratio),
        ", ".join(_words(table, row)),
    ]


def _words(table: Table, row: Row) -> Iterator[str]:
    if verdict(table, row):
        yield verdict(table, row)
    if row.unstable:
        yield "unstable"


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({settings_in_words(value)})"
    if isinstance(value, (list, tuple)):
        return "/".join(map(_setting, value))
    return str(value)


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') or not text else '.'}"
