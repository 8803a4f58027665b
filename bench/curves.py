"""Scaling curves: a figure over threads, batch size, patch size or whatever a sweep varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from has_dali.bench.rendering import axis_name
from has_dali.bench.rendering import figure as number
from has_dali.bench.results import Row, Table
from has_dali.trainers.figures import style

_PANEL, _HEIGHT = 4.9, 2.7
_LEFT, _RIGHT, _GAP = 0.75, 0.25, 0.35
_HEAD, _PANEL_HEAD, _PANEL_FOOT = 0.6, 0.34, 0.55
_POINTS = 8.5
_OURS = "#0b7a75"
_PEERS = ("#6e7680", "#d1570b", "#3b6fb6", "#a3338b", "#b8860b", "#1c2026", "#5aa02c")
_OURS_TOO = ("#0b7a75", "#54b4ac", "#08514d", "#8fd0ca")
_BOUND = "#b9c2cc"
_LEAST_FACTOR = 4.0  # an axis whose figures span less stays linear


@dataclass
class _Series:
    """A curve: places, medians, quartiles."""

    name: str
    kind: str
    rows: list[Row] = field(default_factory=list)

    def columns(self) -> tuple[list[float], list[float], list[float], list[float]]:
        rows = sorted(self.rows, key=lambda row: float(row.extra["x"]))
        found = [(float(row.extra["x"]), row.value) for row in rows if row.value is not None]
        xs = [x for x, _ in found]
        return xs, [v.median for _, v in found], [v.quartiles[0] for _, v in found], [v.quartiles[1] for _, v in found]


def curves(tables: Sequence[Table], title: str) -> Figure:
    """The figure of all sweeps among ``tables``; two panels in a row.

    Raises:
        ValueError: no measured row has a place on an axis.
    """
    panels = _panels(tables)
    if not panels:
        names = ", ".join(table.key for table in tables) or "none"
        raise ValueError(f"tables {names}: no measured row has extra['x']: there is no curve to draw")
    columns = min(2, len(panels))
    keys = [style.key_lines([one.name for one in series], _PANEL - _LEFT) for _, series in panels]
    lines = [max(len(key) for key in keys[i : i + columns]) for i in range(0, len(panels), columns)]
    heights = [_PANEL_HEAD + count * style.KEY + _HEIGHT + _PANEL_FOOT for count in lines]
    figure = style.new_figure(columns * (_PANEL + _RIGHT) + _GAP, _HEAD + sum(heights))
    style.write(figure, style.MARGIN, 0.3, title, 13, columns * _PANEL, fontweight="bold")
    top = _HEAD
    for i, ((table, series), key) in enumerate(zip(panels, keys, strict=True)):
        row, column = divmod(i, columns)
        left = column * (_PANEL + _RIGHT) + style.MARGIN
        top = _HEAD + sum(heights[:row])
        _panel(figure, left, top, lines[row], table, series, key)
    return figure


def _panels(tables: Sequence[Table]) -> list[tuple[Table, list[_Series]]]:
    """The curves of each pair of axes, in the order of the tables."""
    found: dict[tuple[str, str], tuple[Table, dict[tuple[str, str], _Series]]] = {}
    for table in tables:
        _, series = found.setdefault((axis_name(table), table.unit), (table, {}))
        for row in table.rows:
            if row.value is not None and "x" in row.extra:
                name = str(row.extra.get("series", table.title))
                if any(other == name for key, other in series if key != table.key):
                    name = f"{name}, {table.title}"  # the same contender at another job
                series.setdefault((table.key, name), _Series(name, row.kind)).rows.append(row)
    panels = [(table, list(series.values())) for table, series in found.values() if series]
    wide = [one for one in panels if len({row.extra["x"] for series in one[1] for row in series.rows}) > 1]
    return wide or panels  # a single place makes no curve


def _panel(
    figure: Figure, left: float, top: float, lines: int, table: Table, series: Sequence[_Series], key: Sequence[Any]
) -> None:
    style.write(figure, left, top + 0.14, f"{table.unit} over {axis_name(table)}", 10, _PANEL, fontweight="bold")
    colours = _colours(series)
    for row, line in enumerate(key):
        y = top + _PANEL_HEAD + (row + 0.5) * style.KEY
        for i, name, x in line:
            swatch = style.panel(figure, left + x, y - 0.02, 0.16, 0.035)
            swatch.set_axis_on()
            swatch.patch.set_facecolor(colours[i])
            swatch.set(xticks=[], yticks=[])
            swatch.spines[:].set_visible(False)
            style.write(figure, left + x + 0.21, y, name, 8, _PANEL - x - 0.21)
    below = top + _PANEL_HEAD + lines * style.KEY + 0.06
    axes = style.panel(figure, left + _LEFT - style.MARGIN, below, _PANEL - _LEFT, _HEIGHT)
    axes.set_axis_on()
    style.plain_axes(axes)
    places, values = set[float](), list[float]()
    for one, colour in zip(series, colours, strict=True):
        xs, medians, low, high = one.columns()
        wide = one.kind == "ours"
        axes.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(xs, medians, color=colour, linewidth=2.2 if wide else 1.4, marker="o", markersize=4 if wide else 3)
        places.update(xs)
        values += [*medians, *high]
    _scale(axes, sorted(places), values)
    axes.set_xlabel(axis_name(table), fontsize=_POINTS, color=style.FADED)


def _colours(series: Sequence[_Series]) -> list[str]:
    counts = {"ours": 0, "peer": 0, "bound": 0}
    colours = []
    for one in series:
        palette = {"ours": _OURS_TOO, "peer": _PEERS}.get(one.kind, (_BOUND,))
        colours.append(palette[counts[one.kind] % len(palette)])
        counts[one.kind] += 1
    return colours


def _scale(axes: Any, places: Sequence[float], values: Sequence[float]) -> None:
    """Doubling steps where the places span enough; figures from zero unless they span many octaves."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    plain = FuncFormatter(lambda value, _: number(value))
    if places[0] > 0 and places[-1] >= _LEAST_FACTOR * places[0]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(_apart(places)))
    axes.xaxis.set_major_formatter(plain)
    if min(values) > 0 and max(values) >= _LEAST_FACTOR**2 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.06 * max(values))
        style.round_steps(axes.yaxis, 5)
    axes.yaxis.set_major_formatter(plain)


def _apart(places: Sequence[float]) -> list[float]:
    """The places whose numbers fit below the axis: all of a few, else every second, third, ..."""
    step = -(-len(places) // 12)
    return list(places[::step])
