"""The arithmetic of measuring, with a clock of our own: nothing here depends on real time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from has_dali.bench import timing


class Clock:
    """Time passes only when a batch is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.made = 0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def batches(self, first: int, slow: float, steady: float) -> Iterator[int]:
        for self.made in itertools.count(1):
            self.now += slow if self.made <= first else steady
            yield self.made


def test_start_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    window = timing.Window(seconds=1.0, batches=4, discarded=5, stride=1)
    batches = clock.batches(5, 9.0, 0.25)
    assert timing.segment(lambda: next(batches), window) == pytest.approx([0.25] * 4)
    assert clock.made == 5 + 4


@pytest.mark.parametrize(("seconds", "batches", "stride", "counted"), [(1.0, 7, 2, 8), (0.1, 7, 4, 8), (3.0, 2, 5, 15)])
def test_window_ends_after_time_and_count_at_the_stride(
    seconds: float, batches: int, stride: int, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    window = timing.Window(seconds, batches, discarded=2, stride=stride)
    batches_made = clock.batches(0, 0.0, 0.25)
    timing.segment(lambda: next(batches_made), window)
    assert clock.made == 2 + counted


def test_summary() -> None:
    summary = timing.Summary((5.0, 1.0, 2.0, 4.0, 3.0))
    assert summary.median == 3.0 and summary.quartiles == (2.0, 4.0) and summary.iqr == 2.0
    assert summary.to_dict()["values"] == [5.0, 1.0, 2.0, 4.0, 3.0]
    assert timing.Summary((7.0,)).iqr == 0.0


def test_ratio_pairs_the_rounds() -> None:
    # In the slow second round both peers lose half: the ratio stays 2, though the medians alone would say 2.5.
    assert timing.ratio(timing.Summary((10.0, 5.0, 10.0)), timing.Summary((5.0, 2.5, 4.0))).values == (2.0, 2.0, 2.5)
    with pytest.raises(ValueError, match="zip"):
        timing.ratio(timing.Summary((1.0,)), timing.Summary((1.0, 2.0)))


def test_every_peer_is_first_once() -> None:
    orders = [timing.rotated(["a", "b", "c"], step) for step in range(3)]
    assert [order[0] for order in orders] == ["a", "b", "c"]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
