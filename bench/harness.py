"""How contenders are compared: same job or void, warm before the clock starts, in turns, medians of the rounds.

A contender is opened, shows some of its output to the equality check, warms up by time and by count, and is then
measured in turns with the others, starting with another one in every round. What cannot run is skipped with the reason
and what does another job, or fails in any round, is void with the reason; neither is left out of the table.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from has_dali.bench import timing
from has_dali.bench.results import Latency, Row, Table

Step: TypeAlias = Callable[[], Any]
_CHECKED_STEPS = 4


class Unavailable(Exception):  # noqa: N818 (a state of the contender, not a fault)
    """A contender cannot run here; the message says why, and what would help."""


@dataclass(frozen=True)
class Verdict:
    """Whether a contender does the job."""

    reason: str | None = None
    """Why it does not; None when it does."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was seen, JSON-able."""


@dataclass(frozen=True)
class Contender:
    """Something that can do the job of a table.

    Args:
        key: name within the table.
        label: what people read.
        open: gives ``step``, which does one batch and returns it; may raise ``Unavailable``.
        check: judges the outputs of some steps; None: there is nothing to compare, as with a bound.
        requires: modules that must import; the first one that does not is the reason of a skip.
        stays_open: it is idle between its turns; else it is closed and opened again for every turn.
        units: what one step counts for, such as the images of a batch.
        kind: see ``results.KINDS``.
        extra: further figures of the row.
    """

    key: str
    label: str
    open: Callable[[], AbstractContextManager[Step]]
    check: Callable[[Sequence[Any]], Verdict] | None = None
    requires: tuple[str, ...] = ()
    stays_open: bool = True
    units: float = 1.0
    kind: str = "peer"
    extra: Mapping[str, Any] = field(default_factory=dict)


def silent(steps: int = 1, note: str = "") -> None:
    """No progress bar."""


def measure_table(
    key: str,
    title: str,
    contenders: Sequence[Contender],
    *,
    baseline: str,
    rounds: int,
    window: timing.Window,
    unit: str = "images/s",
    better: str = "higher",
    parameters: Mapping[str, Any] | None = None,
    checked_steps: int = _CHECKED_STEPS,
    advance: Callable[..., None] = silent,
    note: str = "",
) -> Table:
    """Measure contenders in turns.

    Args:
        baseline: key of the contender that ratios refer to; it must run.
        rounds: measured turns of each contender.
        window: length of a turn.
        unit, better: "higher": units per second; "lower": seconds per unit, whatever ``unit`` calls them.
        parameters: what the job is.
        checked_steps: outputs that each equality check gets.
        advance: called ``(rounds + 1) * len(contenders)`` times in all, with ``note=`` who was measured.

    Raises:
        RuntimeError: the baseline is skipped or void; nothing could be compared.
    """
    table = Table(key, title, unit, better, baseline, dict(parameters or {}), note=note)
    rows = {one.key: Row(one.key, one.label, one.kind, extra=dict(one.extra)) for one in contenders}
    table.rows = list(rows.values())
    seconds: dict[str, list[float]] = {one.key: [] for one in contenders}
    values: dict[str, list[float]] = {one.key: [] for one in contenders}
    running: dict[str, Contender] = {}
    steps: dict[str, Step] = {}
    stacks: dict[str, ExitStack] = {}
    with ExitStack() as stack:
        for one in contenders:
            own = stacks[one.key] = ExitStack()
            stack.callback(_close, own, one, rows[one.key])
            step = opened(one, rows[one.key], own, checked_steps, partial(timing.warm_up, window=window))
            if step is not None:
                running[one.key] = one
            if step is not None and one.stays_open:
                steps[one.key] = step
            else:
                _close(own, one, rows[one.key])
            advance(note=one.label)
            if one.key == baseline and one.key not in running:
                raise _no_baseline(rows[baseline])
        advance(steps=rounds * (len(contenders) - len(running)))
        for turn in range(rounds):
            for name in timing.rotated(list(running), turn):
                one = running[name]
                timing.settle()
                durations = _turn(one, steps.get(name), window, rows[name], turn)
                if durations is None:
                    del running[name]
                    _close(stacks[name], one, rows[name])
                    if name == baseline:
                        raise _no_baseline(rows[name])
                    advance(steps=rounds - turn)
                    continue
                per_unit = sum(durations) / (len(durations) * one.units)
                values[name].append(1 / per_unit if better == "higher" else per_unit)
                seconds[name] += durations
                advance(note=one.label)
    for name in running:
        rows[name].value, rows[name].latency = timing.Summary(tuple(values[name])), Latency.of(seconds[name])
    table.fill_ratios()
    return table


def _turn(one: Contender, step: Step | None, window: timing.Window, row: Row, turn: int) -> list[float] | None:
    """Seconds of each step of one turn; None: it failed, and the row says how.

    Args:
        step: of a contender that stays open; None: it is opened for the turn.
    """
    own = ExitStack()
    try:
        try:
            return timing.segment(step or own.enter_context(one.open()), window)
        finally:
            _close(own, one, row)
    except Exception as error:
        if one.kind == "ours":
            raise
        row.status, row.reason = "void", f"fails in round {turn + 1}: {in_words(error)}"
        return None


def _close(stack: ExitStack, one: Contender, row: Row) -> None:
    """Close a contender; what a peer did before it fails to close still counts, and its row tells."""
    try:
        stack.close()
    except Exception as error:
        if one.kind == "ours":
            raise
        row.extra["fails_to_close"] = in_words(error)


def _no_baseline(row: Row) -> RuntimeError:
    return RuntimeError(f"{row.label} cannot be compared with: {row.reason}")


def opened(
    one: Contender,
    row: Row,
    stack: ExitStack,
    checked_steps: int,
    warm_up: Callable[[Step], None],
    wait: Callable[[], None] = lambda: None,
) -> Step | None:
    """The step of a contender that does the job and is warm; else None, and the row says why.

    Args:
        stack: closes it.
        checked_steps: outputs that its equality check gets.
        warm_up: runs its step until it is warm.
        wait: returns when a device has done what it was given.
    """
    try:
        for module in one.requires:
            importlib.import_module(module)
        begin = time.perf_counter()
        step = stack.enter_context(one.open())
        seen = [step()]
        row.extra.setdefault("first_seconds", time.perf_counter() - begin)
        if one.check is not None:
            seen += [step() for _ in range(checked_steps - 1)]
            wait()
            verdict = one.check(seen)
            row.check = dict(verdict.facts)
            if verdict.reason is not None:
                row.status, row.reason = "void", verdict.reason
                return None
        del seen
        warm_up(step)
    except Unavailable as missing:
        row.status, row.reason = "skipped", str(missing)
        return None
    except ImportError as missing:
        row.status, row.reason = "skipped", f"does not import: {_first_line(missing)}"
        return None
    except Exception as error:
        if one.kind == "ours":
            raise
        row.status, row.reason = "void", f"fails: {in_words(error)}"
        return None
    return step


def in_words(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
