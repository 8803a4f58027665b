"""Bar charts of measured rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from has_dali.bench.loader_peers import CEILING, OURS, PEERS
from has_dali.bench.loaders import LoaderReport
from has_dali.console import atomic_file

_OURS, _OTHER, _LIMIT, _INK, _FADED = "#0b7a75", "#b9c2cc", "#eef1f4", "#1c2026", "#6e7680"
_ROW_INCHES = 0.62


def loader_chart(report: LoaderReport, path: Path, title: str, subtitle: str) -> None:
    """Images/s of all loaders as a PNG; each bar says how many times as fast our loader with HaS is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates = sorted(report.rates.items(), key=lambda item: item[1].median)
    figure = Figure(figsize=(10, 1.45 + _ROW_INCHES * len(rates)), dpi=150, facecolor="white")
    axes = figure.add_axes((0.30, 0.06, 0.67, 1 - 1.2 / figure.get_figheight()))
    widest = max(rate.median for _, rate in rates)
    for row, (key, rate) in enumerate(rates):
        _draw_bar(axes, row, report, key, widest)
        first, third = rate.quartiles
        axes.plot((first, third), (row, row), color=_INK, linewidth=1.4, alpha=0.7, solid_capstyle="butt")
    axes.set_yticks(range(len(rates)), [PEERS[key].label for key, _ in rates], color=_INK, fontsize=10.5)
    for label, (key, _) in zip(axes.get_yticklabels(), rates, strict=True):
        label.set_fontweight("bold" if key == OURS else "normal")
    axes.set_xlim(0, widest * 1.45)
    axes.set_ylim(-0.6, len(rates) - 0.4)
    axes.tick_params(length=0)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.38 / height, title, fontsize=14, fontweight="bold", color=_INK)
    figure.text(0.02, 1 - 0.68 / height, subtitle, fontsize=9, color=_FADED)
    with atomic_file(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def _draw_bar(axes: Any, row: int, report: LoaderReport, key: str, widest: float) -> None:
    value = report.rates[key].median
    text_left = max(value, report.rates[key].quartiles[1]) + widest * 0.012
    colour = _OURS if key == OURS else _LIMIT if key == CEILING else _OTHER
    axes.barh(row, value, height=0.66, color=colour, edgecolor=_FADED if key == CEILING else colour, linewidth=0.8)
    axes.text(text_left, row + 0.13, f"{value:,.0f} images/s", va="center", fontsize=10.5, color=_INK)
    axes.text(text_left, row - 0.19, _relation(report, key), va="center", fontsize=8.5, color=_FADED)


def _relation(report: LoaderReport, key: str) -> str:
    relation = report.ratio(key)
    if key == OURS or relation is None:
        return "crop, resize, mirror, normalise, hide"
    if key == CEILING:
        return f"has_dali with HaS reaches {relation.median:.0%} of it"
    return f"has_dali with HaS is {relation.median:.2f}x as fast"
