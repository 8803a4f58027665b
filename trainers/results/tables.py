"""Metrics and reports on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from has_dali.console import Terminal

_TWICE = ("gt_known@0.5", "top1_loc@0.5")  # the paper's overlap: shown as gt_known and top1_loc


def show_report(terminal: Terminal, report: Mapping[str, Any], out: Path) -> None:
    """The end of a run: metrics of the last and best weights, speed, where everything lies."""
    title = f"{report['task']}, {report['recipe']}, seed {report['seed']}: {report['epochs']} epochs"
    show_metrics(terminal, title, report["metrics"], report["baselines"])
    terminal.say(
        f"{report['images_per_second']:,.0f} images/s, input stall {report['input_stall']:.2%}, hidden"
        f" {report['hidden_fraction']:.1%} of the pixels, {report['wall_seconds']:.0f} s in all"
    )
    terminal.say(f"report: {out / 'report.json'}")


def show_metrics(
    terminal: Terminal,
    title: str,
    columns: Mapping[str, Mapping[str, float]],
    baselines: Mapping[str, Mapping[str, float]],
) -> None:
    """Metrics as rows; the trivial baselines are columns beside them."""
    shown = {**columns, **baselines}
    names = [
        name for name in dict.fromkeys(name for values in columns.values() for name in values) if name not in _TWICE
    ]
    rows = [[name, *(_number(values.get(name)) for values in shown.values())] for name in names]
    terminal.table(title, ["metric", *shown], rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
