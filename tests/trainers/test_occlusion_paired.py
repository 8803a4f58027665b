"""Paired statistics: hand-computed cases, exact laws of small cases, and SciPy as the oracle where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.trainers.metrics.paired import bootstrap_interval, mcnemar_exact, t_interval, t_quantile


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),  # 2 * 1/2
        (0, 5, 0.0625),  # 2 / 2**5
        (1, 4, 0.375),  # 2 * (1 + 5) / 2**5
        (4, 1, 0.375),
        (3, 3, 1.0),  # twice the tail is above 1
        (2, 8, 0.109375),  # 2 * (1 + 10 + 45) / 2**10
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, expected: float) -> None:
    assert mcnemar_exact(only_a, only_b) == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_tail(a: int, b: int) -> None:
    tail = sum(math.comb(a + b, k) for k in range(min(a, b) + 1))
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a) == min(1.0, 2 * tail / 2 ** (a + b))


def test_mcnemar_of_many_images() -> None:
    """Close to the normal approximation with continuity correction; numbers beyond float's range on the way."""
    z = (20_400 - 20_000 - 1) / math.sqrt(40_400)
    assert mcnemar_exact(20_000, 20_400) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_bad_counts() -> None:
    with pytest.raises(ValueError, match="only_b=-1"):
        mcnemar_exact(1, -1)
    with pytest.raises(TypeError, match=r"only_a=1\.5"):
        mcnemar_exact(1.5, 1)  # type: ignore[arg-type]


def test_bootstrap_without_spread() -> None:
    assert bootstrap_interval([True, False, True], [True, False, True]) == (0.0, 0.0)
    assert bootstrap_interval([0, 0], [1, 1]) == (1.0, 1.0)
    assert bootstrap_interval([3.0], [2.5]) == (-0.5, -0.5)


def test_bootstrap_of_two_images() -> None:
    """Differences 0 and 1: a draw of two has mean 0, 1/2, 1 with probability 1/4, 1/2, 1/4."""
    assert bootstrap_interval([0, 0], [0, 1], confidence=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0, 0], [0, 1], confidence=0.4) == (0.5, 0.5)  # from the 30 % to the 70 % quantile


def test_bootstrap_has_the_law_of_drawing_image_by_image() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(200) < 0.5, rng.random(200) < 0.6
    differences = b.astype(float) - a
    drawn = differences[rng.integers(0, 200, (20_000, 200))].mean(1)
    expected = np.quantile(drawn, [0.025, 0.975])
    assert bootstrap_interval(a, b, resamples=20_000) == pytest.approx(expected, abs=0.011)  # two steps of 1/200


def test_bootstrap_is_seeded() -> None:
    a, b = np.zeros(50), np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(a, b, seed=3) == bootstrap_interval(a, b, seed=3)
    assert bootstrap_interval(a, b, seed=3) != bootstrap_interval(a, b, seed=4)


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((0,), (0,)), ((2, 1), (2, 1))])
def test_bootstrap_of_bad_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="a, b: expected two arrays of one outcome per image"):
        bootstrap_interval(*(np.zeros(shape) for shape in shapes))


def test_bootstrap_of_bad_numbers() -> None:
    with pytest.raises(ValueError, match="confidence=1"):
        bootstrap_interval([1], [1], confidence=1)


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 3, 3.18245), (0.95, 4, 2.13185), (0.995, 29, 2.75639)],
)
def test_t_quantiles_of_the_printed_tables(probability: float, degrees: int, expected: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(expected, abs=5e-5)
    assert t_quantile(0.5, degrees) == pytest.approx(0, abs=1e-12)


def test_t_quantile_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 3, 4, 5, 10, 99, 1000):
        for probability in (0.55, 0.9, 0.999):
            assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


def test_t_interval_by_hand() -> None:
    """1 and 3: mean 2, s = sqrt(2), s / sqrt(2) = 1, t(0.975, 1) = 12.7062."""
    assert t_interval([1.0, 3.0]) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    assert t_interval([5.0, 5.0, 5.0]) == (5.0, 5.0)
    assert t_interval([1.0]) is None and t_interval([]) is None


def test_bad_t_quantile() -> None:
    with pytest.raises(ValueError, match="degrees=0"):
        t_quantile(0.9, 0)
