"""Pictures of measured rates: bars with ratios, and curves over threads, batch or patch size; PNG or SVG by name."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from has_dali.bench.rendering import figure as number
from has_dali.bench.rendering import ordered, times, verdict
from has_dali.bench.results import RATIO, Row, Table
from has_dali.bench.timing import Summary
from has_dali.console import atomic_file

SUFFIXES = (".png", ".svg")
_OURS, _OTHER, _LIMIT, _INK, _FADED = "#0b7a75", "#b9c2cc", "#eef1f4", "#1c2026", "#6e7680"
_COLOURS = {"ours": _OURS, "peer": _OTHER, "bound": _LIMIT}
_WIDTH, _ROW_INCHES, _EDGE, _GAP = 10.0, 0.62, 0.2, 0.1
_WIDEST_LABEL = 3.6
_CUT = 1.5  # a bound longer than this many times the longest other bar is drawn cut
_LABEL_POINTS, _SMALL_POINTS = 10.5, 8.5
_HEAD_INCHES, _LINE_INCHES = 1.0, 0.2


@dataclass(frozen=True)
class _Bar:
    """One bar with its texts."""

    label: str
    kind: str
    value: float
    quartiles: tuple[float, float]
    text: str
    small: str
    bold: bool = False


def check_suffix(path: Path) -> None:
    """Raise ValueError unless the name of the file says which kind of picture it is to be."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}")


def bar_chart(table: Table, path: Path, title: str, subtitle: str = "") -> None:
    """A table as horizontal bars, the fastest on top; what was not measured is listed below with the reason.

    Args:
        table: one with at least one measured row.
        path: a name ending in ``.png`` or ``.svg``.

    Raises:
        ValueError: nothing was measured, or the name ends otherwise.
        OSError: the file cannot be written.
    """
    rows = [row for row in ordered(table) if row.value is not None]
    if not rows:
        raise ValueError(f"table {table.key}: no row was measured: there is nothing to draw")
    missing = [f"{row.label}: {row.status}: {row.reason}" for row in table.rows if row.value is None]
    _save(_bars([_bar(table, row) for row in rows], title, subtitle, missing), path)


def _bar(table: Table, row: Row) -> _Bar:
    assert row.value is not None
    return _Bar(
        row.label,
        row.kind,
        row.value.median,
        row.value.quartiles,
        f"{number(row.value.median)} {table.unit}" + (", unstable" if row.unstable else ""),
        _ratio_words(table, row),
        row.key == table.baseline,
    )


def _ratio_words(table: Table, row: Row) -> str:
    baseline = table.row(table.baseline)
    if baseline is None or row.ratio is None or row.key == baseline.key:
        return "what the others are compared with" if len(table.rows) > 1 else ""
    if RATIO in table.parameters:
        return f"{row.ratio.median:.1%}: {table.parameters[RATIO]}"
    if row.kind == "bound" and baseline.kind != "bound":
        return f"a bound: {row.ratio.median:.0%} of it is reached"
    if baseline.kind == "bound":
        return f"{1 / row.ratio.median:.0%} of the bound"
    if baseline.kind != "ours" or row.kind == "ours":
        return f"{times(Summary(tuple(1 / value for value in row.ratio.values)))} as fast as the baseline"
    result = verdict(table, row)
    return f"has_dali is {times(row.ratio)} as fast" + (f" ({result})" if result else "")


def _bars(bars: Sequence[_Bar], title: str, subtitle: str, missing: Sequence[str]) -> Any:
    """The figure; every length is in inches first, so that no text can meet another."""
    from has_dali.trainers.figures import style

    left = _EDGE + _GAP + min(_WIDEST_LABEL, max(_width(bar.label, _LABEL_POINTS, bar.bold) for bar in bars))
    labels = ["\n".join(_folded(bar.label, _WIDEST_LABEL, _LABEL_POINTS, bar.bold)) for bar in bars]
    heads = _folded(subtitle, _WIDTH - 2 * _EDGE, 9) if subtitle else []
    small = [line for text in missing for line in _folded(text, _WIDTH - 2 * _EDGE, _SMALL_POINTS)]
    head = _HEAD_INCHES + _LINE_INCHES * max(0, len(heads) - 1)
    foot = 0.25 + (_LINE_INCHES * (len(small) + 1.5) if small else 0)
    body = _ROW_INCHES * len(bars)
    figure = style.new_figure(_WIDTH, head + body + foot)
    axes = style.panel(figure, left, head, _WIDTH - left - _EDGE, body)
    room = _WIDTH - left - _EDGE
    limit = _CUT * max((bar.value for bar in bars if bar.kind != "bound"), default=float("inf"))
    scale = min((room - _GAP - _text_inches(bar)) / min(limit, max(bar.value, bar.quartiles[1])) for bar in bars)
    for i, (bar, label) in enumerate(zip(bars, labels, strict=True)):
        y = len(bars) - 1 - i
        colour = _COLOURS[bar.kind]
        edge = _FADED if bar.kind == "bound" else colour
        cut = bar.kind == "bound" and bar.value > limit
        length = scale * (limit if cut else bar.value)
        axes.barh(y, length, height=0.66, color=colour, edgecolor=edge, linewidth=0.8)
        if cut:
            for x in (0.80 * length, 0.80 * length + 0.07):  # a slanted gap: the bar is longer than it is drawn
                axes.plot((x - 0.06, x + 0.06), (y - 0.36, y + 0.36), color=_FADED, linewidth=0.8)
            corners = ((-0.06, -0.36), (0.06, 0.36), (0.13, 0.36), (0.01, -0.36))
            axes.fill([0.80 * length + dx for dx, _ in corners], [y + dy for _, dy in corners], color="white", zorder=3)
        elif bar.quartiles[0] < bar.quartiles[1]:
            first, third = (quartile * scale for quartile in bar.quartiles)
            axes.plot((first, third), (y, y), color=_INK, linewidth=1.4, alpha=0.7, solid_capstyle="butt")
        x = (length if cut else max(bar.value, bar.quartiles[1]) * scale) + _GAP
        axes.text(x, y + (0.13 if bar.small else 0), bar.text, va="center", fontsize=_LABEL_POINTS, color=_INK)
        axes.text(x, y - 0.19, bar.small, va="center", fontsize=_SMALL_POINTS, color=_FADED)
        weight = "bold" if bar.bold else "normal"
        axes.text(-_GAP, y, label, ha="right", va="center", fontsize=_LABEL_POINTS, color=_INK, fontweight=weight)
    axes.set_xlim(0, room)
    axes.set_ylim(-0.5, len(bars) - 0.5)
    style.write(figure, _EDGE, 0.32, title, 14, _WIDTH - 2 * _EDGE, fontweight="bold")
    for i, line in enumerate(heads):
        style.write(figure, _EDGE, 0.62 + _LINE_INCHES * i, line, 9, color=_FADED)
    if small:
        style.write(figure, _EDGE, head + body + 0.25, "Not measured", _SMALL_POINTS, fontweight="bold", color=_FADED)
    for i, line in enumerate(small, 1):
        style.write(figure, _EDGE, head + body + 0.25 + _LINE_INCHES * i, line, _SMALL_POINTS, color=_FADED)
    return figure


def curve_chart(tables: Sequence[Table], path: Path, title: str) -> None:
    """Sweeps as curves with the band of their quartiles: a panel for each axis and unit, a curve for each series.

    A row's place is its ``extra["x"]`` and its curve its ``extra["series"]``, or its table where there is none.

    Raises:
        ValueError: no measured row has a place, or the name of the file ends otherwise.
        OSError: the file cannot be written.
    """
    from has_dali.bench.curves import curves

    _save(curves(tables, title), path)


def _text_inches(bar: _Bar) -> float:
    return max(_width(bar.text, _LABEL_POINTS), _width(bar.small, _SMALL_POINTS)) + 0.05


@cache
def _width(text: str, points: float, bold: bool = False) -> float:
    from has_dali.trainers.figures.style import text_width

    return text_width(text, points, "bold" if bold else "normal")


def _folded(text: str, width: float, points: float, bold: bool = False) -> list[str]:
    """``text`` in as many lines as it needs to be at most ``width`` inches wide."""
    lines = [text]
    columns = min(len(text), int(1.3 * len(text) * width / max(width, _width(text, points, bold))) + 2)
    while columns > 8 and any(_width(line, points, bold) > width for line in lines):
        columns -= 1
        lines = textwrap.wrap(text, columns)
    return lines


def _save(figure: Any, path: Path) -> None:
    import matplotlib

    check_suffix(path)
    kind = path.suffix[1:].lower()
    # No date and fixed names of parts: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "has_dali"}), atomic_file(path) as file:
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
