"""Learning rates by hand."""

from __future__ import annotations

import math

import pytest

from has_dali.trainers.schedule import Schedule
from has_dali.trainers.settings import OptimSettings

ALEXNET = [[0, 0.01, 5e-4], [18, 5e-3, 5e-4], [29, 1e-3, 0]]


def test_phases_hold_until_the_next_one() -> None:
    schedule = Schedule(OptimSettings(schedule="phases", phases=ALEXNET), 55)
    assert schedule(0) == schedule(17.99) == (0.01, 5e-4)
    assert schedule(18) == schedule(28.5) == (5e-3, 5e-4)
    assert schedule(29) == schedule(54.9) == (1e-3, 0)


@pytest.mark.parametrize(
    ("kind", "at", "share"),
    [
        ("cosine", 2, 1.0),
        ("cosine", 6, 0.5),
        ("cosine", 4, (1 + math.sqrt(0.5)) / 2),
        ("cosine", 10, 0.0),
        ("linear", 6, 0.5),
        ("linear", 9, 0.125),
        ("constant", 9.9, 1.0),
        ("linear", 1, 0.5),
        ("cosine", 0.5, 0.25),
        ("constant", 0, 0.0),
    ],
)
def test_shapes_after_two_epochs_of_warm_up(kind: str, at: float, share: float) -> None:
    settings = OptimSettings(schedule=kind, lr=0.4, weight_decay=1e-4, warmup_epochs=2)  # type: ignore[arg-type]
    lr, weight_decay = Schedule(settings, 10)(at)
    assert lr == pytest.approx(0.4 * share)
    assert weight_decay == 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "phases"}, "optim.phases=.*expected"),
        ({"schedule": "phases", "phases": [[1, 0.1, 0.0]]}, "rising epochs"),
        ({"schedule": "phases", "phases": [[0, 0.1, 0.0], [0, 0.2, 0.0]]}, "rising epochs"),
        ({"schedule": "phases", "phases": [[0, 0.1]]}, "optim.phases"),
        ({"schedule": "phases", "phases": [[0, 0.1, 0.0], [10, 0.2, 0.0]]}, r"\[10, 0.2, 0.0\] never begins .*=10"),
        ({"schedule": "cosine", "phases": [[0, 0.1, 0.0]]}, "only optim.schedule=phases"),
        ({"warmup_epochs": 10}, "warmup_epochs=10: expected 0 to less than the 10 epochs"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1"),
    ],
)
def test_schedules_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(OptimSettings(**changes), 10)  # type: ignore[arg-type]
