"""Statistics of paired results: two models on the same images, or two methods with the same seeds."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test: p-value of "both models are right equally often".

    Under that hypothesis each image on which exactly one model is right is a fair coin, so p is twice the smaller
    binomial tail, at most 1. Images that both get right, or both wrong, say nothing.

    Args:
        only_a: images that only the first model gets right, >= 0.
        only_b: images that only the second gets right, >= 0.

    Raises:
        ValueError: a count is negative.
        TypeError: a count is not an integer.
    """
    low, high = sorted(_count(name, value) for name, value in (("only_a", only_a), ("only_b", only_b)))
    total = low + high
    ways, tail = 1, 1
    for k in range(low):  # C(n, k + 1) from C(n, k): exact, and much cheaper than each from scratch
        ways = ways * (total - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**total)


def bootstrap_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = 0.95
) -> Interval:
    """Percentile interval of mean(b) - mean(a) over images drawn with replacement, both models on the same draw.

    Args:
        a: (N,) outcomes of the first model per image (right or wrong, or any number), N >= 1.
        b: (N,) outcomes of the second model on the same images.
        seed: of the draws; the same seed gives the same interval.
        resamples: number of draws.
        confidence: share of the draws inside the interval.

    Raises:
        ValueError: lengths differ, there are no images, or a number is out of range.
    """
    first, second = (np.asarray(values, np.float64) for values in (a, b))
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(
            f"a, b: expected two arrays of one outcome per image, got shapes {first.shape} and {second.shape}"
        )
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples={resamples}, confidence={confidence}: expected at least 1, and a number between 0 and 1"
        )
    # How often each distinct difference is drawn is multinomial: the same law as drawing image by image, and the
    # cost does not grow with the images.
    values, counts = np.unique(second - first, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(first), counts / len(first), size=resamples)
    means = drawn @ values / len(first)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def t_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's interval of the mean of independent differences; None for fewer than two.

    Args:
        differences: one number per seed.
        confidence: coverage, between 0 and 1.
    """
    count = len(differences)
    if count < 2:
        return None
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    reach = t_quantile((1 + confidence) / 2, count - 1) * spread / math.sqrt(count)
    return Interval(mean - reach, mean + reach)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t with a whole number of degrees of freedom, for probabilities from 0.5 to below 1.

    With t = sqrt(degrees) tan(angle), P(|T| < t) is a finite sum of powers of the angle's cosine (Abramowitz and
    Stegun, 26.7.3 and 26.7.4), solved for the angle by bisection.
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(f"probability={probability}, degrees={degrees}: expected 0.5 to below 1, and at least 1")
    wanted = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < wanted else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if degrees == 1:
        total = 0.0
    for k in range(2 + odd, degrees, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _count(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected a number of images") from None
    if number < 0:
        raise ValueError(f"{name}={value!r}: expected a number of images, 0 or more")
    return number
