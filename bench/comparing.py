"""``has-dali bench compare A.json B.json``: is B slower than A beyond the noise of both?

A figure moved when its median changed by more than a floor of 3 % and by more than the interquartile ranges of both
runs together. With five rounds of normal noise that is more than three standard errors of the difference, so that
chance alone hardly ever gets there, and an unstable run gets there least of all.

Ratios to a table's baseline are compared always: both sides were measured in turns, so they hold on another machine
too. Absolute figures are compared on the same machine only, and only for rows of ours; what the peers and bounds of a
table moved by together is taken off first, since code that did not change can only have moved with the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from has_dali.bench.documents import read_document
from has_dali.bench.rendering import figure
from has_dali.bench.results import Bar, Result, Row, Table
from has_dali.bench.timing import Summary
from has_dali.console import Parser, Terminal, check_writable, write_json

FLOOR = 0.03
RULE = f"moved: the median changed by more than {FLOOR:.0%} and by more than the IQRs of both runs together"
_FREE_SETTINGS = ("rounds", "quick")  # how often and how long, not what


@dataclass(frozen=True)
class Change:
    """A figure in both runs."""

    where: str
    """Scope, table and row."""
    what: str
    """"ratio", "absolute" or "bar"."""
    before: float
    after: float
    gain: float
    """Relative change in the direction that is better for us."""
    judgement: str
    """"regression", "improvement", "changed" (neither side is ours, or both), or "same"."""


@dataclass
class Comparison:
    """Two runs side by side."""

    same_machine: bool
    machines: list[str] = field(default_factory=list)
    """How the machines and versions differ."""
    differences: list[str] = field(default_factory=list)
    """How the jobs differ; empty unless forced."""
    changes: list[Change] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Rows of ours that were measured before and are not now: regressions as well."""
    unmatched: list[str] = field(default_factory=list)
    """Rows that only one of the runs measured."""

    @property
    def regressions(self) -> list[Change]:
        """What got worse beyond noise."""
        return [change for change in self.changes if change.judgement == "regression"]

    @property
    def failed(self) -> bool:
        """Whether the second run is a step back."""
        return bool(self.regressions or self.lost)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "rule": RULE, "regressed": self.failed}


def compare(before: Mapping[str, Any], after: Mapping[str, Any], force: bool = False) -> Comparison:
    """Compare two documents of one scope.

    Args:
        before, after: as ``read_document`` gives them.
        force: compare runs of different data or settings, and list how they differ.

    Raises:
        ValueError: the scopes differ; or, without ``force``, the jobs do.
    """
    first, second = Result.from_dict(before), Result.from_dict(after)
    if first.scope != second.scope:
        raise ValueError(f"the runs are of scopes {first.scope} and {second.scope}: only the same scope compares")
    differences = job_differences(first, second)
    if differences and not force:
        raise ValueError(f"the runs did different jobs: {differences[0]}; measure the same, or give --force")
    hardware = machine_differences(before["machine"], after["machine"])
    found = Comparison(
        not hardware, [*hardware, *_version_differences(before["machine"], after["machine"])], differences
    )
    for table in first.tables:
        other = next((one for one in second.tables if one.key == table.key), None)
        if other is not None:
            _compare_tables(found, first.scope, table, other)
        else:
            found.unmatched += [f"{first.scope}/{table.key}: only in the first run"]
    keys = {table.key for table in first.tables}
    found.unmatched += [
        f"{second.scope}/{one.key}: only in the second run" for one in second.tables if one.key not in keys
    ]
    _compare_bars(found, first, second)
    return found


def moved(before: Summary, after: Summary) -> bool:
    """Whether a figure changed beyond the noise of both runs; see the head of this module."""
    change = abs(after.median - before.median)
    return change > FLOOR * abs(before.median) and change > before.iqr + after.iqr


def job_differences(first: Result, second: Result) -> list[str]:
    """How what was measured differs: settings, data, and what tables of one name hold."""
    found = list(_dict_differences("settings", first.settings, second.settings, _FREE_SETTINGS))
    old, new = first.data or {}, second.data or {}
    by = "fingerprint" if old.get("fingerprint") and new.get("fingerprint") else "images"
    if bool(old) != bool(new) or old.get(by) != new.get(by):
        found.append(f"data {by} {_brief(old.get(by))} against {_brief(new.get(by))}")
    for table in first.tables:
        other = next((one for one in second.tables if one.key == table.key), None)
        if other is None:
            continue
        for name in ("unit", "better", "baseline"):
            if getattr(table, name) != getattr(other, name):
                found.append(f"table {table.key}: {name} {getattr(table, name)} against {getattr(other, name)}")
        found += _dict_differences(f"table {table.key}:", table.parameters, other.parameters, ())
    return found


def machine_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """How the hardware differs, limits included; absolute figures compare only where it does not."""
    pairs: list[tuple[str, Any, Any]] = []
    for part, names in (("cpu", ("model", "usable_cores", "governor")), ("container", ("cpus", "memory_bytes"))):
        pairs += [(f"{part} {name}", first[part][name], second[part][name]) for name in names]
    gpus = [[(gpu.get("name"), gpu.get("power_limit_watts")) for gpu in machine["gpus"]] for machine in (first, second)]
    pairs.append(("gpus", gpus[0], gpus[1]))
    return [f"{name} {_brief(old)} against {_brief(new)}" for name, old, new in pairs if old != new]


def _version_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    old = {"python": first["python"], **first["packages"]}
    new = {"python": second["python"], **second["packages"]}
    return list(_dict_differences("version of", old, new, ()))


def _dict_differences(
    what: str, first: Mapping[str, Any], second: Mapping[str, Any], ignored: Sequence[str]
) -> Iterator[str]:
    for name in sorted(set(first) | set(second)):
        if name in ignored or first.get(name) == second.get(name):
            continue
        old, new = first.get(name), second.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _dict_differences(f"{what} {name}", old, new, ())
        else:
            yield f"{what} {name} {_brief(old)} against {_brief(new)}"


def _compare_tables(found: Comparison, scope: str, first: Table, second: Table) -> None:
    drift = _drift(first, second)
    for row in first.rows:
        where = f"{scope}/{first.key}/{row.key}"
        other = second.row(row.key)
        if row.value is None or other is None or other.value is None:
            _note_gap(found, where, row, other)
            continue
        if row.ratio is not None and other.ratio is not None and row.key != first.baseline:
            sign = _favours(first, row)
            found.changes.append(_change(where, "ratio", row.ratio, other.ratio, sign))
        if found.same_machine and row.kind == "ours":
            scaled = Summary(tuple(value / drift for value in other.value.values))
            found.changes.append(_change(where, "absolute", row.value, scaled, 1 if first.better == "higher" else -1))
    known = {row.key for row in first.rows}
    found.unmatched += [
        f"{scope}/{first.key}/{row.key}: only in the second run" for row in second.rows if row.key not in known
    ]


def _drift(first: Table, second: Table) -> float:
    """What the figures of the rows that are not ours were multiplied by, as a median; 1 where there are none."""
    factors = []
    for row in first.rows:
        other = second.row(row.key)
        if row.kind != "ours" and row.value is not None and other is not None and other.value is not None:
            factors.append(other.value.median / row.value.median)
    return statistics.median(factors) if factors else 1.0


def _favours(table: Table, row: Row) -> int:
    """Whether a larger ratio is good (1) or bad (-1) for us; 0 where it says nothing about us."""
    baseline = table.row(table.baseline)
    ours = baseline is not None and baseline.kind == "ours"
    return 0 if ours == (row.kind == "ours") else 1 if ours else -1


def _change(where: str, what: str, before: Summary, after: Summary, sign: int) -> Change:
    relative = after.median / before.median - 1 if before.median else 0.0
    gain = relative * (sign or 1)
    judgement = "same"
    if moved(before, after):
        judgement = "changed" if sign == 0 else "improvement" if gain > 0 else "regression"
    return Change(where, what, before.median, after.median, gain, judgement)


def _note_gap(found: Comparison, where: str, row: Row, other: Row | None) -> None:
    if row.value is None and (other is None or other.value is None):
        return  # measured in neither
    if row.value is None:
        found.unmatched.append(f"{where}: only in the second run ({row.status} in the first: {row.reason})")
        return
    reason = "no such row" if other is None else f"{other.status}: {other.reason}"
    (found.lost if row.kind == "ours" else found.unmatched).append(f"{where}: only in the first run ({reason})")


def _compare_bars(found: Comparison, first: Result, second: Result) -> None:
    """Bars may be seconds or bytes: the same machine only. Lost is one that was met and, beyond noise, is not now."""
    others: dict[str, Bar] = {bar.what: bar for bar in second.bars}
    for bar in first.bars:
        other = others.get(bar.what)
        if found.same_machine and other is not None and bar.value is not None and other.value is not None:
            sign = 1 if bar.at_least is not None else -1
            change = _change(f"{first.scope}/bar/{bar.what}", "bar", bar.value, other.value, sign)
            if change.judgement == "regression" and not (bar.met and not other.met):
                change = replace(change, judgement="changed")
            found.changes.append(change)


def show(terminal: Terminal, found: Comparison) -> None:
    """Print what moved, what cannot be compared, and the verdict."""
    order = ("regression", "improvement", "changed")
    told = sorted((one for one in found.changes if one.judgement in order), key=lambda one: order.index(one.judgement))
    if told:
        rows = [
            [one.where, one.what, figure(one.before), figure(one.after), f"{one.gain:+.1%}", one.judgement]
            for one in told
        ]
        terminal.table("What moved", ["figure", "", "before", "after", "better by", ""], rows, RULE)
    for title, lines in (
        ("the jobs differ", found.differences),
        ("the machines differ", found.machines),
        ("not measured any more", found.lost),
        ("unmatched", found.unmatched),
    ):
        for line in lines:
            terminal.say(f"{title}: {line}")
    if not found.same_machine:
        terminal.say("ratios alone were compared: absolute figures of different machines say nothing")
    count = len(found.regressions) + len(found.lost)
    total = len(found.changes)
    verdict = f"{count} regressions" if count else f"no regression in {total} figures"
    terminal.say(verdict if count != 1 else "1 regression", "red" if count else "green")


def main(argv: Sequence[str]) -> int:
    """``has-dali bench compare A.json B.json``: exit code 1 when B regressed."""
    parser = Parser("has-dali bench compare", f"Compare two runs of one scope; {RULE}.")
    parser.add_argument("before", type=Path, metavar="A.json", help="the earlier run")
    parser.add_argument("after", type=Path, metavar="B.json", help="the later run")
    parser.add_argument("--force", action="store_true", help="compare although data or settings differ")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    found = compare(read_document(options.before), read_document(options.after), options.force)
    show(Terminal(options.quiet), found)
    if options.json is not None:
        write_json(options.json, found.to_dict())
    return 1 if found.failed else 0


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
