"""What a benchmark found: tables of rows, bars that must be reached, and the one JSON document that holds them.

Every comparison is a ratio between two rows measured in turns, round by round; a row that did not do the same job is
void, one whose library is missing is skipped, and both say why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from has_dali.bench.timing import Interval, Summary, ratio

VERSION = 1
UNSTABLE_IQR = 0.15
"""Interquartile range over the median from which a row is flagged: something else must have used the machine."""
COUNT_OF_P99 = 100
"""Steps from which a 99th percentile is shown."""
STATUSES = ("measured", "skipped", "void")
RATIO = "ratio"
"""Parameter of a table that says what its ratios are, where they are no comparison of speeds."""
KINDS = ("ours", "peer", "bound")
"""``bound``: what no peer can exceed, such as a copy of the same bytes or decoding alone."""


@dataclass(frozen=True)
class Latency:
    """How long single steps took, in milliseconds, over all rounds."""

    p50: float
    p90: float
    p99: float
    max: float
    count: int
    """Steps; of fewer than ``COUNT_OF_P99`` the 99th percentile is the largest value by another name."""

    @property
    def resolved_p99(self) -> float | None:
        """The 99th percentile where there are steps enough for one."""
        return self.p99 if self.count >= COUNT_OF_P99 else None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """From the durations of steps in seconds, at least one."""
        import numpy as np

        p50, p90, p99, largest = (1000 * float(value) for value in np.percentile(seconds, (50, 90, 99, 100)))
        return cls(p50, p90, p99, largest, len(seconds))

    def to_dict(self) -> dict[str, float]:
        """JSON-able form."""
        return {"p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max, "count": self.count}


@dataclass
class Row:
    """One contender of a table."""

    key: str
    label: str
    kind: str = "peer"
    """One of ``KINDS``."""
    status: str = "measured"
    """One of ``STATUSES``."""
    reason: str | None = None
    """Why it is skipped or void."""
    value: Summary | None = None
    """In the unit of the table, one value per round."""
    ratio: Summary | None = None
    """Speed of the table's baseline over this row's, round by round: above 1 the baseline is faster."""
    latency: Latency | None = None
    check: dict[str, Any] | None = None
    """What the equality check saw."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further figures; ``x`` is the position on the axis of a sweep."""

    @property
    def unstable(self) -> bool:
        """The rounds differ so much that the row should be measured again."""
        return self.value is not None and self.value.iqr > UNSTABLE_IQR * abs(self.value.median)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "key": self.key,
            "label": self.label,
            "kind": self.kind,
            "status": self.status,
            "reason": self.reason,
            "value": _maybe(self.value),
            "ratio": _maybe(self.ratio),
            "unstable": self.unstable,
            "latency_ms": _maybe(self.latency),
            "check": self.check,
            "extra": self.extra,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Row:
        """The row that ``to_dict`` gave."""
        latency = record["latency_ms"]
        return cls(
            record["key"],
            record["label"],
            record["kind"],
            record["status"],
            record["reason"],
            _summary(record["value"]),
            _summary(record["ratio"]),
            None if latency is None else Latency(**latency),
            record["check"],
            dict(record["extra"]),
        )


@dataclass
class Table:
    """Contenders that did the same job in turns.

    Args:
        key: name within the scope.
        unit: of the values, such as "images/s".
        better: "higher" or "lower".
        baseline: key of the row that ratios refer to.
        parameters: what the job was; a sweep names its axis as ``x``.
    """

    key: str
    title: str
    unit: str
    better: str
    baseline: str
    parameters: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    note: str = ""

    def row(self, key: str) -> Row | None:
        """The row with this key, or None."""
        return next((row for row in self.rows if row.key == key), None)

    def speed_ratio(self, fast: str, slow: str) -> Summary | None:
        """Speed of one row over another's, round by round; None unless both were measured."""
        first, second = self.row(fast), self.row(slow)
        if first is None or second is None or first.value is None or second.value is None:
            return None
        if len(first.value.values) != len(second.value.values):
            return None
        return ratio(first.value, second.value) if self.better == "higher" else ratio(second.value, first.value)

    def fill_ratios(self) -> None:
        """Compute every measured row's ratio to the baseline."""
        for row in self.rows:
            row.ratio = self.speed_ratio(self.baseline, row.key)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        own = {name: getattr(self, name) for name in ("key", "title", "unit", "better", "baseline", "parameters")}
        return {**own, "rows": [row.to_dict() for row in self.rows], "note": self.note}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Table:
        """The table that ``to_dict`` gave."""
        return cls(**{**record, "rows": [Row.from_dict(row) for row in record["rows"]]})


@dataclass(frozen=True)
class Bar:
    """A figure that must be reached: at least or at most a number.

    Args:
        what: the figure, in words.
        value: one value per round; None: not measured, and ``note`` says why.
        aim: what would be better still.
        note: what limits it, where that is known.
        interval: of the mean over the rounds, for figures that are small beside their noise.
    """

    what: str
    value: Summary | None
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    note: str = ""
    interval: Interval | None = None

    @property
    def resolved(self) -> bool | None:
        """Whether the interval lies on one side of what is asked; None without an interval."""
        if self.interval is None:
            return None
        limits = [limit for limit in (self.at_least, self.at_most) if limit is not None]
        return not any(self.interval.low < limit < self.interval.high for limit in limits)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the bar; None when it was not measured."""
        return None if self.value is None else self._within(self.at_least, self.at_most)

    @property
    def aim_met(self) -> bool | None:
        """Whether the median reaches the aim as well; None without a measurement or an aim."""
        if self.value is None or self.aim is None:
            return None
        return self._within(self.aim, None) if self.at_least is not None else self._within(None, self.aim)

    def _within(self, low: float | None, high: float | None) -> bool:
        assert self.value is not None
        median = self.value.median
        return (low is None or median >= low) and (high is None or median <= high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        limits = {"at_least": self.at_least, "at_most": self.at_most, "aim": self.aim}
        found = {"met": self.met, "interval": _maybe(self.interval), "resolved": self.resolved}
        return {"what": self.what, "value": _maybe(self.value), **limits, **found, "note": self.note}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Bar:
        """The bar that ``to_dict`` gave."""
        limits = {name: record[name] for name in ("at_least", "at_most", "aim")}
        interval = None if record["interval"] is None else Interval(**record["interval"])
        return cls(record["what"], _summary(record["value"]), note=record["note"], interval=interval, **limits)


@dataclass
class Result:
    """One run of one scope.

    Args:
        scope: "op", "loader", ...; figures of different scopes never stand in one column.
        conditions: how it was measured, in words.
        settings: everything that decides what was measured; two results compare only if these are equal.
        data: fingerprint of the data set, or None.
    """

    scope: str
    title: str
    conditions: str
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] | None = None
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    def table(self, key: str) -> Table:
        """The table with this key."""
        return next(table for table in self.tables if table.key == key)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "scope": self.scope,
            "title": self.title,
            "conditions": self.conditions,
            "settings": self.settings,
            "data": self.data,
            "tables": [table.to_dict() for table in self.tables],
            "bars": [bar.to_dict() for bar in self.bars],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Result:
        """The result in a document, or what ``to_dict`` gave."""
        return cls(
            record["scope"],
            record["title"],
            record["conditions"],
            dict(record["settings"]),
            record["data"],
            [Table.from_dict(table) for table in record["tables"]],
            [Bar.from_dict(bar) for bar in record["bars"]],
        )


def document(
    result: Result, argv: Sequence[str], started: str, seconds: float, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON document of a run, as ``result_schema.json`` has it.

    Args:
        argv: the command, without folders.
        started: ISO 8601, UTC.
        seconds: what the run took.
        machine: what ``machine.py`` describes.
    """
    run = {"argv": list(argv), "started": started, "seconds": seconds, "machine": dict(machine)}
    return {"version": VERSION, **run, **result.to_dict()}


def _maybe(value: Summary | Latency | Interval | None) -> dict[str, Any] | None:
    return None if value is None else value.to_dict()


def _summary(record: Mapping[str, Any] | None) -> Summary | None:
    return None if record is None else Summary(tuple(record["values"]))
