"""Did a figure move between two runs, or is it noise?

A figure moved when its median changed by more than a floor of 3 % and Welch's t test on the logarithms of the rounds
finds chance less likely than 1 % over the number of figures that the runs have in common. So in one comparison of a
hundred, whatever its size, noise alone moves anything. Fewer than three rounds know nothing about their noise: there
the floor is 15 %, and the change says so.
"""

from __future__ import annotations

import math
import statistics

from has_dali.bench.timing import Summary

FLOOR, FEW_FLOOR = 0.03, 0.15
CHANCE = 0.01
"""Of a false alarm among all figures of a comparison."""
FEW = 3
"""Rounds from which their noise is known."""
RULE = (
    f"moved: the median changed by more than {FLOOR:.0%}, and chance (Welch's t test on logarithms) is less likely than"
    f" {CHANCE:.0%} over the number of figures; with fewer than {FEW} rounds, by more than {FEW_FLOOR:.0%}"
)


def moved(before: Summary, after: Summary, figures: int = 1) -> bool:
    """Whether a figure changed beyond the noise of both runs; see the head of this module.

    Args:
        figures: how many are compared together.
    """
    change = abs(after.median - before.median)
    if min(len(before.values), len(after.values)) < FEW:
        return change > FEW_FLOOR * abs(before.median)
    return change > FLOOR * abs(before.median) and chance(before, after) < CHANCE / figures


def chance(before: Summary, after: Summary) -> float:
    """Two-sided p of Welch's t test; on logarithms unless a value, such as a cost, is not positive."""
    from scipy.special import stdtr

    sides = [before.values, after.values]
    if min(map(min, sides)) > 0:
        sides = [tuple(map(math.log, values)) for values in sides]
    shift = statistics.fmean(sides[1]) - statistics.fmean(sides[0])
    parts = [statistics.variance(values) / len(values) for values in sides]
    error = math.sqrt(sum(parts))
    if not error:
        return 0.0 if shift else 1.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, sides, strict=True))
    return float(2 * stdtr(freedom, -abs(shift) / error))
