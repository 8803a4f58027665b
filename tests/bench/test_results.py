"""Results keep their meaning through JSON, and their ratios pair the rounds."""

from __future__ import annotations

import json

import pytest

from has_dali.bench.results import Bar, Latency, Result, Row, Table, document
from has_dali.bench.timing import Interval, Summary


def _table(better: str = "higher") -> Table:
    fast, slow = Summary((10.0, 5.0, 10.0)), Summary((5.0, 2.5, 4.0))
    rows = [
        Row("ours", "has_dali", "ours", value=fast, latency=Latency(1, 2, 3, 4, 5)),
        Row("peer", "a peer", value=slow, check={"hidden": 0.5}, extra={"x": 3}),
        Row("gone", "a peer that is missing", status="skipped", reason="does not import"),
    ]
    table = Table("t", "title", "images/s", better, "ours", {"x": "threads"}, rows, "note")
    table.fill_ratios()
    return table


def test_ratios_are_speeds_whatever_the_unit() -> None:
    rate, time = _table().row("peer"), _table("lower").row("peer")
    assert rate is not None and rate.ratio is not None and rate.ratio.values == (2.0, 2.0, 2.5)
    assert time is not None and time.ratio is not None and time.ratio.values == (0.5, 0.5, 0.4)
    assert _table().speed_ratio("ours", "gone") is None


def test_a_restless_row_is_flagged() -> None:
    assert Row("a", "", value=Summary((1.0, 1.2, 1.4))).unstable
    assert not Row("a", "", value=Summary((1.0, 1.01, 1.02))).unstable
    assert not Row("a", "").unstable


@pytest.mark.parametrize(
    ("bar", "met", "aim_met"),
    [
        (Bar("", Summary((0.9,)), at_least=0.85, aim=0.95), True, False),
        (Bar("", Summary((0.8,)), at_least=0.85, aim=0.95), False, False),
        (Bar("", Summary((1.2,)), at_most=1.25, aim=1.05), True, False),
        (Bar("", Summary((1.04,)), at_most=1.25, aim=1.05), True, True),
        (Bar("", None, at_most=1.25), None, None),
    ],
)
def test_bars(bar: Bar, met: bool | None, aim_met: bool | None) -> None:
    assert bar.met is met and bar.aim_met is aim_met


def test_round_trip_through_json() -> None:
    bars = [Bar("w", Summary((1.0, 2.0)), 1.5, aim=3, note="n", interval=Interval(1.5, 1.0, 2.0)), Bar("v", None)]
    result = Result("op", "title", "conditions", {"batch": 64}, {"images": 3}, [_table()], bars)
    text = json.dumps(document(result, ["has-dali"], "2026-01-01T00:00:00Z", 1.5, {"cpu": "x"}), allow_nan=False)
    again = Result.from_dict(json.loads(text))
    assert again == result
    assert json.loads(text)["machine"] == {"cpu": "x"}


def test_interval_of_known_values() -> None:
    # mean 2, standard deviation 1, three values: Student's t at 97.5 % with two degrees of freedom is 4.3027.
    interval = Interval.of(Summary((1.0, 2.0, 3.0)))
    assert interval is not None and interval.mean == 2
    assert (interval.low, interval.high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    assert Interval.of(Summary((1.0,))) is None


@pytest.mark.parametrize(
    ("at_least", "at_most", "resolved"),
    [(None, 0.01, False), (None, 0.03, True), (None, -0.02, True), (0.0, None, False), (0.03, 0.01, False)],
)
def test_a_bar_within_the_interval_is_not_resolved(
    at_least: float | None, at_most: float | None, resolved: bool
) -> None:
    value = Summary((0.0, 0.01))
    bar = Bar("", value, at_least, at_most, interval=Interval(0.005, -0.01, 0.02))
    assert bar.resolved is resolved and Bar("", value, at_least, at_most).resolved is None
    assert bar.to_dict()["resolved"] is resolved and bar.to_dict()["interval"]["low"] == -0.01
