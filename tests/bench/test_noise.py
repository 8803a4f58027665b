"""What counts as moved: hardly ever chance, whatever the number of figures, and what is clearly slower always."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from has_dali.bench.noise import FEW_FLOOR, FLOOR, chance, moved
from has_dali.bench.timing import Summary


def drawn(rng: np.random.Generator, spread: float, rounds: int = 5, at: float = 100.0) -> Summary:
    return Summary(tuple(float(value) for value in at * (1 + spread * rng.standard_normal(rounds))))


def test_noise_alone_moves_nothing_in_99_of_100_comparisons() -> None:
    rng = np.random.default_rng(0)
    runs, figures = 100, 200
    alarms = 0
    for _ in range(runs):
        alarms += any(moved(drawn(rng, 0.08), drawn(rng, 0.08), figures) for _ in range(figures))
    assert alarms <= 5  # one is expected; more than five come once in two thousand


def test_a_single_figure_has_the_chance_that_it_says() -> None:
    rng = np.random.default_rng(1)
    found = np.array([chance(drawn(rng, 0.08), drawn(rng, 0.08)) for _ in range(4000)])
    assert np.mean(found < 0.05) == pytest.approx(0.05, abs=0.015)


def test_the_test_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    for rounds in ((5, 5), (3, 9)):
        before, after = drawn(rng, 0.05, rounds[0]), drawn(rng, 0.2, rounds[1], 110)
        expected = stats.ttest_ind(np.log(before.values), np.log(after.values), equal_var=False).pvalue
        assert chance(before, after) == pytest.approx(expected)


@pytest.mark.parametrize("rounds", [5, 7])
def test_what_is_clearly_slower_is_found_among_many(rounds: int) -> None:
    rng = np.random.default_rng(3)
    found = [moved(drawn(rng, 0.01, rounds), drawn(rng, 0.01, rounds, 85), 200) for _ in range(200)]
    assert np.mean(found) > 0.95


def test_floors() -> None:
    steady = Summary((100.0,) * 5)
    assert not moved(steady, Summary((100 * (1 - 0.9 * FLOOR),) * 5), 200)
    assert moved(steady, Summary((100 * (1 - 1.1 * FLOOR),) * 5), 200)
    assert not moved(steady, steady)
    for values in (1, 2):
        few = Summary((100 * (1 - 0.9 * FEW_FLOOR),) * values)
        assert not moved(steady, few) and not moved(few, steady.__class__((few.median,)))
        assert moved(steady, Summary((100 * (1 - 1.1 * FEW_FLOOR),) * values), 200)


def test_costs_around_nothing_have_a_chance_too() -> None:
    rng = np.random.default_rng(4)
    around = [Summary(tuple(rng.normal(0.0, 0.005, 5).tolist())) for _ in range(50)]
    assert sum(moved(a, b, 50) for a, b in itertools.pairwise(around)) <= 1
    assert moved(around[0], Summary(tuple(0.1 + value for value in around[1].values)), 50)
