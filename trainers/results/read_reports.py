"""Reads the ``report.json`` files that training runs leave behind, and checks what comparisons rely on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from has_dali.trainers.results.report import REPORT
from has_dali.trainers.results.report import read_report as load

Which = Literal["best", "last"]
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """What a comparison needs of one run; ``file`` is where it was read.

    ``best`` and ``last`` hold the metrics of the best and of the last evaluation. A metric that was not finite is
    absent.
    """

    file: Path
    task: str
    recipe: str | None
    method: str | None
    table: str | None
    seed: int
    epochs: int | None
    started: str
    settings: Mapping[str, Any]
    trainer: Mapping[str, Any]
    dataset: Mapping[str, Any]
    best: Metrics
    last: Metrics
    baselines: Mapping[str, Metrics]

    def metrics(self, which: Which) -> Metrics:
        """The metrics of the best or the last evaluation."""
        return self.best if which == "best" else self.last


def read_reports(paths: Iterable[Path | str]) -> list[Report]:
    """All reports at or below the given places, each file once, in the order of their paths.

    Args:
        paths: report files, run folders, or folders of run folders.

    Raises:
        OSError: a path does not exist.
        ValueError: a folder holds no report, or a report cannot be used.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        found = sorted(path.rglob(REPORT)) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path}: no {REPORT} in it or below; give the folder of a finished training run")
        files |= dict.fromkeys(file.resolve() for file in found)
    if not files:
        raise ValueError("no runs were given: name at least one folder of a finished training run")
    return [read_report(file) for file in files]


def read_report(file: Path) -> Report:
    """One report.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: it is not JSON, of another version, or lacks a part.
    """
    content = load(file)
    metrics = _part(file, content, "metrics", dict)
    return Report(
        file=file,
        task=_part(file, content, "task", str),
        recipe=_part(file, content, "recipe", str, optional=True),
        method=_part(file, content, "method", str, optional=True),
        table=_part(file, content, "table", str, optional=True),
        seed=_part(file, content, "seed", int),
        epochs=_part(file, content, "epochs", int, optional=True),
        started=str(content.get("started") or ""),
        settings=_part(file, content, "settings", dict),
        trainer=_part(file, content, "trainer", dict, optional=True) or {},
        dataset=_part(file, content, "dataset", dict),
        best=_numbers(file, "metrics.best", metrics.get("best")),
        last=_numbers(file, "metrics.last", metrics.get("last")),
        baselines={
            name: _numbers(file, f"baselines.{name}", values)
            for name, values in (_part(file, content, "baselines", dict, optional=True) or {}).items()
        },
    )


def _part(file: Path, content: Mapping[str, Any], name: str, kind: type, optional: bool = False) -> Any:
    value = content.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        got = type(value).__name__ if name in content else "nothing"
        raise ValueError(f"{file}: {name}: expected {kind.__name__}, got {got}; the report is damaged")
    return value


def _numbers(file: Path, name: str, values: Any) -> dict[str, float]:
    """Metrics by name without the null ones: JSON has no NaN, so a report says null."""
    if not isinstance(values, dict):
        raise ValueError(
            f"{file}: {name}: expected metrics by name, got {type(values).__name__}; the report is damaged"
        )
    numbers = {}
    for metric, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            raise ValueError(f"{file}: {name}.{metric}: expected a number, got {value!r}; the report is damaged")
        if value is not None:
            numbers[str(metric)] = float(value)
    return numbers
