"""Which pictures a result makes: one of its sweeps together, one for each other table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from has_dali.bench.rendering import is_sweep
from has_dali.bench.results import Result, Table

SWEEPS = "scaling"


class Plot(NamedTuple):
    """A picture that can be drawn."""

    key: str
    """Key of its table, or ``SWEEPS``."""
    title: str
    draw: Callable[[Path], None]


def plots(result: Result, subtitle: str = "") -> list[Plot]:
    """The pictures of a result, in the order of its tables; a table with a single figure makes none.

    Args:
        subtitle: what stands under the titles of bar charts; the conditions by default.
    """
    found = []
    sweeps = [table for table in result.tables if is_sweep(table) and _measured(table) > 1]
    if sweeps:
        found.append(Plot(SWEEPS, result.title, partial(_curves, sweeps, result.title)))
    for table in result.tables:
        if not is_sweep(table) and _measured(table) > 1:
            found.append(Plot(table.key, table.title, partial(_bars, table, subtitle or result.conditions)))
    return found


def plot_files(result: Result, path: Path) -> dict[Path, Plot]:
    """Where the pictures of a result go: to ``path`` if there is one, else beside it, named by their tables."""
    found = plots(result)
    if len(found) == 1:
        return {path: found[0]}
    return {path.with_name(f"{path.stem}_{plot.key}{path.suffix}"): plot for plot in found}


def _measured(table: Table) -> int:
    return sum(row.value is not None for row in table.rows)


def _bars(table: Table, subtitle: str, path: Path) -> None:
    from has_dali.bench.charts import bar_chart

    bar_chart(table, path, table.title, subtitle)


def _curves(tables: list[Table], title: str, path: Path) -> None:
    from has_dali.bench.charts import curve_chart

    curve_chart(tables, path, title)
