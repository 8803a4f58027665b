"""The harness itself: a known speed is measured right, and what does another job does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from has_dali.bench import timing
from has_dali.bench.harness import Contender, Unavailable, Verdict, measure_table
from has_dali.bench.results import Latency, Table

WINDOW = timing.Window(seconds=0.12, batches=4, discarded=1, stride=1)


def _every(seconds: float) -> Callable[[], Any]:
    """Opens a step that ends every ``seconds``, as a metronome does: what delays one shortens the next."""

    @contextmanager
    def opened() -> Iterator[Callable[[], float]]:
        due = 0.0

        def step() -> float:
            nonlocal due
            now = time.perf_counter()
            due = due + seconds if now - due < 2 * seconds else now + seconds
            time.sleep(max(due - time.perf_counter(), 0))
            return seconds

        yield step

    return opened


def _measure(*contenders: Contender, rounds: int = 5, **options: Any) -> Table:
    return measure_table(
        "t", "a table", contenders, baseline=contenders[0].key, rounds=rounds, window=WINDOW, **options
    )


def test_a_known_speed_is_measured_within_10_percent() -> None:
    table = _measure(
        Contender("fast", "every 5 ms", _every(0.005), units=8, kind="ours"),
        Contender("slow", "every 15 ms", _every(0.015), units=8),
    )
    fast, slow = table.rows
    assert fast.value is not None and slow.value is not None and slow.ratio is not None
    assert fast.value.median == pytest.approx(8 / 0.005, rel=0.1)
    assert slow.value.median == pytest.approx(8 / 0.015, rel=0.1)
    assert slow.ratio.median == pytest.approx(3, rel=0.1)
    assert fast.latency is not None and fast.latency.p50 == pytest.approx(5, rel=0.2)
    assert len(fast.value.values) == 5


def test_seconds_per_step_have_the_same_ratio() -> None:
    table = _measure(
        Contender("fast", "", _every(0.005), kind="ours"),
        Contender("slow", "", _every(0.015)),
        better="lower",
        rounds=3,
    )
    slow = table.rows[1]
    assert slow.value is not None and slow.value.median == pytest.approx(0.015, rel=0.1)
    assert slow.ratio is not None and slow.ratio.median == pytest.approx(3, rel=0.1)


def _wants(wanted: float) -> Callable[[Sequence[float]], Verdict]:
    def check(seen: Sequence[float]) -> Verdict:
        wrong = [value for value in seen if value != wanted]
        return Verdict(f"gives {wrong[0]}, expected {wanted}" if wrong else None, {"outputs": len(seen)})

    return check


def test_another_job_is_void_and_never_timed() -> None:
    table = _measure(
        Contender("ours", "", _every(0.002), _wants(0.002), kind="ours"),
        Contender("peer", "", _every(0.003), _wants(0.002)),
        rounds=1,
    )
    ours, peer = table.rows
    assert ours.status == "measured" and ours.check == {"outputs": 4}
    assert (peer.status, peer.reason) == ("void", "gives 0.003, expected 0.002")
    assert peer.value is None and peer.ratio is None and peer.latency is None


@contextmanager
def _without_hardware() -> Iterator[Callable[[], None]]:
    raise Unavailable("no accelerator: plug one in")
    yield lambda: None


@contextmanager
def _failing() -> Iterator[Callable[[], None]]:
    def step() -> None:
        raise ArithmeticError("overflow\nin line 3")

    yield step


def test_what_cannot_run_says_why() -> None:
    table = _measure(
        Contender("ours", "", _every(0.002), kind="ours"),
        Contender("missing", "", _every(0.002), requires=("no_such_module_at_all",)),
        Contender("bare", "", _without_hardware),
        Contender("broken", "", _failing),
        rounds=1,
    )
    reasons = {row.key: (row.status, row.reason) for row in table.rows[1:]}
    assert reasons["missing"][0] == "skipped" and "no_such_module_at_all" in str(reasons["missing"][1])
    assert reasons["bare"] == ("skipped", "no accelerator: plug one in")
    assert reasons["broken"] == ("void", "fails: ArithmeticError: overflow")


def test_our_own_failure_is_no_row() -> None:
    with pytest.raises(ArithmeticError):
        _measure(Contender("ours", "", _failing, kind="ours"))
    with pytest.raises(RuntimeError, match="cannot be compared with: no accelerator"):
        _measure(Contender("ours", "us", _without_hardware, kind="ours"))


def _dying(call: int, log: list[str]) -> Callable[[], Any]:
    """Opens a step that raises at one of its calls, counted over all openings."""
    calls = 0

    @contextmanager
    def opened() -> Iterator[Callable[[], float]]:
        def step() -> float:
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError("disk gone\nfor good")
            time.sleep(0.001)
            return 0.0

        yield step
        log.append(f"closed after {calls}")

    return opened


@pytest.mark.parametrize("stays_open", [True, False])
def test_a_peer_that_dies_in_a_turn_is_void_and_the_others_go_on(stays_open: bool) -> None:
    log: list[str] = []
    done: list[int] = []
    short = timing.Window(seconds=0.0, batches=2, discarded=1, stride=1)  # 3 calls a turn; 1 + 1 before the first
    table = measure_table(
        "t", "", [
            Contender("ours", "", _every(0.002), kind="ours"),
            Contender("dying", "", _dying(10, log), stays_open=stays_open),
            Contender("well", "", _every(0.002)),
        ],
        baseline="ours", rounds=5, window=short, advance=lambda steps=1, note="": done.append(steps),
    )  # fmt: skip
    ours, dying, well = table.rows
    assert (dying.status, dying.reason) == ("void", "fails in round 3: OSError: disk gone")
    assert dying.value is None and dying.ratio is None and dying.latency is None
    assert well.value is not None and len(well.value.values) == 5 and ours.value is not None and ours.ratio is not None
    assert sum(done) == (5 + 1) * 3
    turns = [] if stays_open else [2, 5, 8]
    assert log == [f"closed after {calls}" for calls in (*turns, 10)]


def test_a_baseline_that_dies_leaves_nothing_to_compare() -> None:
    with pytest.raises(RuntimeError, match="cannot be compared with: fails in round 1: OSError: disk gone"):
        _measure(Contender("peer", "it", _dying(4, [])), Contender("b", "", _every(0.002)))
    log: list[str] = []
    with pytest.raises(OSError, match="disk gone"):
        _measure(Contender("ours", "us", _dying(4, log), kind="ours"))
    assert log == ["closed after 4"]


def test_a_peer_that_fails_to_close_has_been_measured() -> None:
    @contextmanager
    def opened() -> Iterator[Callable[[], None]]:
        yield lambda: time.sleep(0.001)
        raise OSError("still in use")

    ours = Contender("ours", "", _every(0.002), kind="ours")
    for stays_open in (True, False):
        table = _measure(ours, Contender("peer", "", opened, stays_open=stays_open), rounds=1)
        peer = table.rows[1]
        assert peer.value is not None and peer.extra["fails_to_close"] == "OSError: still in use"


def test_contenders_that_work_ahead_are_closed_between_turns() -> None:
    log: list[str] = []

    def opened(name: str) -> Callable[[], Any]:
        @contextmanager
        def open_() -> Iterator[Callable[[], None]]:
            log.append(f"open {name}")
            yield lambda: time.sleep(0.001)
            log.append(f"close {name}")

        return open_

    _measure(Contender("a", "", opened("a"), kind="ours"), Contender("b", "", opened("b"), stays_open=False), rounds=2)
    assert log == ["open a", *["open b", "close b"] * 3, "close a"]


def test_progress_adds_up() -> None:
    steps: list[int] = []

    def advance(steps_done: int = 1, note: str = "", **named: int) -> None:
        steps.append(named.get("steps", steps_done))

    _measure(
        Contender("ours", "", _every(0.002), kind="ours"), Contender("bare", "", _without_hardware), rounds=3,
        advance=advance,
    )  # fmt: skip
    assert sum(steps) == (3 + 1) * 2


def test_latency_quantiles() -> None:
    latency = Latency.of([0.001] * 98 + [0.011, 0.021])
    assert latency.count == 100 and latency.resolved_p99 == latency.p99
    assert Latency.of([0.001] * 99).resolved_p99 is None
    assert latency.p50 == pytest.approx(1) and latency.p90 == pytest.approx(1) and latency.max == pytest.approx(21)
    assert 1 < latency.p99 < 21
