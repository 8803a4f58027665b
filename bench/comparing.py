"""``has-dali bench compare A.json B.json``: is B slower than A beyond the noise of both?

Ratios of ours to peers, and bars that are ratios, are compared always: both sides were measured in turns, so they hold
on another machine too. Absolute figures are compared on the same machine only, and only for rows of ours; what three
or more rows of others in a table moved by together is taken off first, since code that did not change can only have
moved with the machine. Fewer of them could have moved by themselves.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from has_dali.bench.documents import read_document
from has_dali.bench.noise import FEW, RULE, moved
from has_dali.bench.rendering import figure
from has_dali.bench.results import Bar, Result, Row, Table
from has_dali.bench.run_differences import (
    THREADS,
    free_settings,
    job_differences,
    machine_differences,
    version_differences,
)
from has_dali.bench.timing import Summary
from has_dali.console import Parser, Terminal, check_writable, write_json

_LEAST_DRIFT = 3  # rows that must have moved together
_DIMENSIONS = re.compile(r"\b(seconds|milliseconds|ms|us|MiB|GiB|MB|GB|images/s|GB/s)\b")


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
    note: str = ""
    """What limits the judgement."""


@dataclass(frozen=True)
class _Pair:
    """A figure of both runs, before it is known how many there are."""

    where: str
    what: str
    before: Summary
    after: Summary
    sign: int
    """1: more is better for us, -1: less is, 0: it says nothing about us."""
    reached: tuple[bool | None, bool | None] | None = None
    """Of a bar: whether it was and is met."""


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
    """Rows, tables and bars of ours that were measured before and are not now: regressions as well."""
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
    hardware = machine_differences(before["machine"], after["machine"])
    differences = job_differences(first, second, free_settings(before, after))
    if differences and not force:
        raise ValueError(f"the runs did different jobs: {differences[0]}; measure the same, or give --force")
    found = Comparison(
        not hardware, [*hardware, *version_differences(before["machine"], after["machine"])], differences
    )
    same_settings = not differences and first.settings.get("quick") == second.settings.get("quick")
    pairs: list[_Pair] = []
    for table in first.tables:
        other = next((one for one in second.tables if one.key == table.key), None)
        if other is not None:
            pairs += _compare_tables(found, first.scope, table, other)
            continue
        ours = any(row.kind == "ours" and row.value is not None for row in table.rows)
        (found.lost if ours and same_settings else found.unmatched).append(
            f"{first.scope}/{table.key}: only in the first run"
        )
    keys = {table.key for table in first.tables}
    found.unmatched += [
        f"{second.scope}/{one.key}: only in the second run" for one in second.tables if one.key not in keys
    ]
    pairs += _compare_bars(found, first, second, same_settings)
    found.changes = [_change(pair, len(pairs)) for pair in pairs]
    return found


def _compare_tables(found: Comparison, scope: str, first: Table, second: Table) -> Iterator[_Pair]:
    drift = _drift(first, second)
    for row in first.rows:
        where = f"{scope}/{first.key}/{row.key}"
        other = second.row(row.key)
        if row.value is None or other is None or other.value is None:
            _note_gap(found, where, row, other)
            continue
        yield from _ratios(found.same_machine, scope, first, second, row)
        if found.same_machine and row.kind == "ours":
            scaled = Summary(tuple(value / drift for value in other.value.values))
            yield _Pair(where, "absolute", row.value, scaled, 1 if first.better == "higher" else -1)
    known = {row.key for row in first.rows}
    found.unmatched += [
        f"{scope}/{first.key}/{row.key}: only in the second run" for row in second.rows if row.key not in known
    ]


def _ratios(same_machine: bool, scope: str, first: Table, second: Table, row: Row) -> Iterator[_Pair]:
    """A row's ratios: in a sweep, of ours to the others at the same place; else to the baseline."""
    where = f"{scope}/{first.key}/{row.key}"
    if "x" in row.extra:
        if row.kind != "ours":
            return  # it is one of the others of a row of ours
        others = [
            one
            for one in first.rows
            if one.kind != "ours" and one.extra.get("x") == row.extra["x"] and one.value is not None
        ]
        for one in others:
            before, after = first.speed_ratio(row.key, one.key), second.speed_ratio(row.key, one.key)
            if before is not None and after is not None:
                yield _Pair(f"{where} over {one.key}", "ratio", before, after, 1)
        if others:
            return
    other = second.row(row.key)
    if row.ratio is None or other is None or other.ratio is None or row.key == first.baseline:
        return
    sign = _favours(first, row)
    if "x" in row.extra and sign == 0 and (same_machine or first.parameters.get("x") != THREADS):
        sign = -1  # ours alone: a place that fell behind; how threads scale is the machine's affair as well
    yield _Pair(where, "ratio", row.ratio, other.ratio, sign)


def _drift(first: Table, second: Table) -> float:
    """What the figures of the rows that are not ours were multiplied by, as a median; 1 where they are too few."""
    factors = []
    for row in first.rows:
        other = second.row(row.key)
        if row.kind != "ours" and row.value is not None and other is not None and other.value is not None:
            factors.append(other.value.median / row.value.median)
    return statistics.median(factors) if len(factors) >= _LEAST_DRIFT else 1.0


def _favours(table: Table, row: Row) -> int:
    """Whether a larger ratio is good (1) or bad (-1) for us; 0 where it says nothing about us."""
    baseline = table.row(table.baseline)
    ours = baseline is not None and baseline.kind == "ours"
    return 0 if ours == (row.kind == "ours") else 1 if ours else -1


def _change(pair: _Pair, figures: int) -> Change:
    before, after = pair.before, pair.after
    relative = (after.median - before.median) / abs(before.median) if before.median else 0.0
    gain = relative * (pair.sign or 1)
    judgement = "same"
    if moved(before, after, figures):
        judgement = "changed" if pair.sign == 0 else "improvement" if gain > 0 else "regression"
    if judgement == "regression" and pair.reached is not None and not (pair.reached[0] and not pair.reached[1]):
        judgement = "changed"  # a bar is lost when it was met and, beyond noise, is not now
    note = "too few rounds" if min(len(before.values), len(after.values)) < FEW else ""
    return Change(pair.where, pair.what, before.median, after.median, gain, judgement, note)


def _note_gap(found: Comparison, where: str, row: Row, other: Row | None) -> None:
    if row.value is None and (other is None or other.value is None):
        return  # measured in neither
    if row.value is None:
        found.unmatched.append(f"{where}: only in the second run ({row.status} in the first: {row.reason})")
        return
    reason = "no such row" if other is None else f"{other.status}: {other.reason}"
    (found.lost if row.kind == "ours" else found.unmatched).append(f"{where}: only in the first run ({reason})")


def _compare_bars(found: Comparison, first: Result, second: Result, same_settings: bool) -> Iterator[_Pair]:
    """Bars that are seconds or bytes compare on the same machine only, those that are ratios everywhere."""
    others: dict[str, Bar] = {bar.what: bar for bar in second.bars}
    for bar in first.bars:
        other, where = others.get(bar.what), f"{first.scope}/bar/{bar.what}"
        if bar.value is None:
            continue
        if other is None or other.value is None:
            reason = "no such bar" if other is None else f"not measured: {other.note}"
            # Elsewhere a library may be missing, which is no step back of ours.
            lost = same_settings and found.same_machine
            (found.lost if lost else found.unmatched).append(f"{where}: only in the first run ({reason})")
        elif found.same_machine or not _DIMENSIONS.search(bar.what):
            sign = 1 if bar.at_least is not None else -1
            yield _Pair(where, "bar", bar.value, other.value, sign, (bar.met, other.met))


def show(terminal: Terminal, found: Comparison) -> None:
    """Print what moved, what cannot be compared, and the verdict."""
    order = ("regression", "improvement", "changed")
    told = sorted((one for one in found.changes if one.judgement in order), key=lambda one: order.index(one.judgement))
    if told:
        rows = [
            [one.where, one.what, figure(one.before), figure(one.after), f"{one.gain:+.1%}", _judged(one)]
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


def _judged(change: Change) -> str:
    return f"{change.judgement} ({change.note})" if change.note else change.judgement


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
