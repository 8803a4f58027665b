"""Bars of several arms, grouped by metric: means with every seed shown, and the paper's or trivial levels as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from has_dali.trainers.figures import style

_LEFT, _BOTTOM, _PLOT_HEIGHT = 0.52, 0.42, 2.6
_HEAD = 0.56
_BAR, _BETWEEN = 0.36, 0.35  # inches: a bar with its gap, and the space around a group
_LINE = 0.15  # between labels of levels


@dataclass(frozen=True)
class Bars:
    """One arm: its name, and the values of its seeds by metric; a metric may be missing."""

    name: str
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Level:
    """A value drawn as a line across a metric's group, such as the paper's or a trivial predictor's."""

    metric: str
    name: str
    value: float


def arms_figure(
    arms: Sequence[Bars],
    metrics: Mapping[str, str],
    *,
    title: str,
    y_label: str = "%",
    levels: Sequence[Level] = (),
) -> Figure:
    """Grouped bars from 0: one group per metric, one bar per arm, a dot per seed.

    Args:
        arms: in the order of the bars; the first, usually the baseline, is grey.
        metrics: the groups: metric to its printed name.
        title: above the plot.
        y_label: unit of all values.
        levels: dotted lines with their names right of the group.

    Raises:
        ValueError: there is no arm or more than eight, or none of the values belongs to one.
    """
    style.check_series("arms", len(arms))
    if not any(arm.values.get(metric) for arm in arms for metric in metrics):
        raise ValueError("arms: expected at least one with values of at least one of the metrics")
    notes = {metric: [level for level in levels if level.metric == metric] for metric in metrics}
    group = len(arms) * _BAR
    # Room on either side of a group: for a name wider than its bars, and right of it for the levels' names.
    before = [max(0.0, _widest(metrics[m].split("\n"), 8.5) - group) / 2 for m in metrics]
    after = [max(b, _widest([_text(n) for n in notes[m]], 7) + 0.1) for m, b in zip(metrics, before, strict=True)]
    plot = (group + _BETWEEN) * len(metrics) + sum(before) + sum(after)
    keys = style.key_lines([arm.name for arm in arms], max(plot + _LEFT, 4.2) - 2 * style.MARGIN)
    top = _HEAD + style.KEY * len(keys) + 0.12
    width, height = max(_LEFT + plot + style.MARGIN, 4.2), top + _PLOT_HEIGHT + _BOTTOM
    figure = style.new_figure(width, height)
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, plot / width, _PLOT_HEIGHT / height))
    style.plain_axes(axes)
    axes.set_xlim(0, plot)
    values = [value for arm in arms for metric in metrics for value in arm.values.get(metric, ())]
    highest = max([*values, *(level.value for own in notes.values() for level in own)])
    axes.set_ylim(0, highest * 1.12 or 1.0)
    style.round_steps(axes.yaxis, 6)
    left = _BETWEEN / 2
    centres = []
    for metric, room_before, room_after in zip(metrics, before, after, strict=True):
        left += room_before
        for i, arm in enumerate(arms):
            if arm.values.get(metric):
                _bar(axes, left + (i + 0.5) * _BAR, arm.values[metric], style.SERIES[i])
        _levels(axes, notes[metric], left, left + group, highest * 1.12 / _PLOT_HEIGHT)
        centres.append(left + group / 2)
        left += group + room_after + _BETWEEN
    axes.set_xticks(centres, list(metrics.values()), fontsize=8.5, color=style.INK)
    seeds = sorted({len(values) for arm in arms for metric, values in arm.values.items() if metric in metrics})
    style.write(figure, style.MARGIN, 0.2, title, 10, width=width - 2 * style.MARGIN, fontweight="bold")
    subtitle = _subtitle(y_label, seeds)
    style.write(figure, style.MARGIN, 0.43, subtitle, 8, width=width - 2 * style.MARGIN, color=style.FADED)
    style.draw_key(figure, keys, _HEAD, light=True)
    return figure


def _bar(axes: Any, x: float, values: Sequence[float], colour: str) -> None:
    numbers = np.asarray(values, np.float64)
    mean = float(numbers.mean())
    axes.bar(x, mean, width=0.82 * _BAR, color=style.lightened(colour), linewidth=0)
    if len(numbers) > 1:
        offsets = np.linspace(-0.16, 0.16, len(numbers)) * _BAR
        axes.plot(
            x + offsets, numbers, "o", markersize=2.6, color="white", markeredgecolor=style.INK, markeredgewidth=0.5
        )
    axes.annotate(
        f"{mean:.1f}",
        (x, float(numbers.max())),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=7,
        color=style.INK,
        path_effects=style.HALO,
    )


def _levels(axes: Any, levels: Sequence[Level], first: float, last: float, per_inch: float) -> None:
    places = style.spread([level.value for level in levels], _LINE * per_inch)
    for level, place in zip(levels, places, strict=True):
        axes.plot((first, last), (level.value, level.value), color=style.INK, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
        axes.text(last + 0.05, place, _text(level), fontsize=7, color=style.FADED, va="center", path_effects=style.HALO)


def _widest(lines: Sequence[str], size: float) -> float:
    return max((style.text_width(line, size) for line in lines), default=0.0)


def _text(level: Level) -> str:
    return f"{level.name} {level.value:.1f}"


def _subtitle(y_label: str, seeds: Sequence[int]) -> str:
    if seeds[-1] == 1:
        return f"{y_label}, one seed"
    counts = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{y_label}; bars: mean of {counts} seeds, dots: the seeds"
