"""Lines with bands over seeds: a metric over epochs, or over the threshold that turns a map into a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from has_dali.trainers.figures import style

_PLOT_WIDTH, _PLOT_HEIGHT = 4.6, 2.6
_LEFT, _HEAD, _BOTTOM, _LABEL_GAP = 0.52, 0.56, 0.54, 0.08
_LINE = 0.15  # between the names of levels, in inches


@dataclass(frozen=True)
class Curve:
    """One arm: its name, (P,) places and (seeds, P) or (P,) values; NaN where nothing was measured."""

    name: str
    x: npt.ArrayLike
    values: npt.ArrayLike


def curves_figure(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    references: Mapping[str, float] | None = None,
    percent: bool = True,
) -> Figure:
    """A line per arm: the mean over its seeds, in a band from the lowest to the highest seed.

    Args:
        curves: the arms; the first, usually the baseline, is grey.
        title: above the plot.
        x_label: of the axis.
        y_label: of the axis.
        references: levels that need no training, as dotted lines named at their right end.
        percent: values lie between 0 and 100, and so does the axis; it starts at 0 unless all values lie above 40.

    Raises:
        ValueError: there is no curve or more than eight, or the places and values of one do not fit together.
    """
    style.check_series("curves", len(curves))
    data = [_checked(curve) for curve in curves]
    levels = dict(references or {})
    right = max((style.text_width(name, 8) + _LABEL_GAP for name in levels), default=0.0) + style.MARGIN
    width = _LEFT + _PLOT_WIDTH + right
    keys = style.key_lines([curve.name for curve in curves], width - 2 * style.MARGIN)
    top = _HEAD + style.KEY * len(keys) + 0.14
    height = top + _PLOT_HEIGHT + _BOTTOM
    figure = style.new_figure(width, height)
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, _PLOT_WIDTH / width, _PLOT_HEIGHT / height))
    style.plain_axes(axes)
    for i, (x, values) in enumerate(data):
        colour = style.SERIES[i]
        low, high = _over_seeds(np.min, values), _over_seeds(np.max, values)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        # Not clipped: a line at 100 % lies on the plot's edge.
        axes.plot(x, _over_seeds(np.mean, values), color=colour, linewidth=1.7, solid_joinstyle="round", clip_on=False)
    first, last = min(x.min() for x, _ in data), max(x.max() for x, _ in data)
    axes.set_xlim(first, last if last > first else first + 1)
    _limit(axes, [values for _, values in data], list(levels.values()), percent)
    style.round_steps(axes.xaxis, 8, integer=all(bool((x == np.rint(x)).all()) for x, _ in data))
    style.round_steps(axes.yaxis, 6)
    axes.set_xlabel(x_label, fontsize=8.5, color=style.INK)
    _draw_levels(axes, levels)
    style.write(figure, style.MARGIN, 0.2, title, 10, width=width - 2 * style.MARGIN, fontweight="bold")
    subtitle = _subtitle(y_label, data)
    style.write(figure, style.MARGIN, 0.43, subtitle, 8, width=width - 2 * style.MARGIN, color=style.FADED)
    style.draw_key(figure, keys, _HEAD, light=False)
    return figure


def _checked(curve: Curve) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    x, values = np.asarray(curve.x, np.float64), np.atleast_2d(np.asarray(curve.values, np.float64))
    if x.ndim != 1 or values.ndim != 2 or values.shape[1] != len(x) or not np.isfinite(values).any():
        raise ValueError(
            f"curve {curve.name!r}: expected (P,) places and (seeds, P) finite values, got {x.shape} and {values.shape}"
        )
    return x, values


def _over_seeds(reduce: Any, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Per place over the seeds that were measured there; NaN where none was."""
    result = np.full(values.shape[1], np.nan)
    for i, column in enumerate(values.T):
        measured = column[np.isfinite(column)]
        if len(measured):
            result[i] = reduce(measured)
    return result


def _limit(axes: Any, values: Sequence[npt.NDArray[np.float64]], levels: Sequence[float], percent: bool) -> None:
    everything = np.concatenate([*(part.ravel() for part in values), np.asarray(levels, np.float64)])
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    room = 0.06 * (high - low or abs(high) or 1.0)
    if percent:
        axes.set_ylim(0 if low <= 40 else max(0.0, low - room), min(100.0, high + room))
    else:
        axes.set_ylim(0 if 0 <= low <= 0.5 * high else low - room, high + room)


def _draw_levels(axes: Any, levels: Mapping[str, float]) -> None:
    low, high = axes.get_ylim()
    places = style.spread(list(levels.values()), _LINE * (high - low) / _PLOT_HEIGHT)
    for (name, level), place in zip(levels.items(), places, strict=True):
        axes.axhline(level, color=style.INK, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
        axes.annotate(
            name,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(72 * _LABEL_GAP, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=style.FADED,
            annotation_clip=False,
        )


def _subtitle(y_label: str, data: Sequence[tuple[Any, npt.NDArray[np.float64]]]) -> str:
    seeds = sorted({len(values) for _, values in data})
    if seeds == [1]:
        return f"{y_label}, one seed"
    counts = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{y_label}; lines: mean of {counts} seeds, bands: lowest to highest seed"
