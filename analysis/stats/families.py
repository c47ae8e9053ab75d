"""Many comparisons at once, and how many seeds one would need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import nctdtr

from analysis.stats.estimates import LEVEL, t_quantile

POWER = 0.8
"""How often a difference of the size asked for is to come out as settled."""
MOST_SEEDS = 1000
"""Nobody trains more."""


def holm(p_values: Sequence[float], of: int | None = None) -> list[float]:
    """The p values as they count within their family, in their order (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on, none below the one before it, none
    above 1. To reject what stays at or below α is wrong about any of them at most α of the time, however
    they hang together.

    Args:
        of: how many comparisons the family has, where some were not worth a test; as many as are given for
            None. Those count as the least significant.
    """
    found = np.asarray(p_values, dtype=float)
    order = np.argsort(found, kind="stable")
    factors = (len(found) if of is None else of) - np.arange(len(found))
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * found[order]))
    return [float(each) for each in adjusted]


def power(seeds: int, difference: float, deviations: Sequence[float], level: float = LEVEL) -> float:
    """How often a two-sided t test at this level tells a true difference from zero (Student's noncentral t).

    Args:
        seeds: of each configuration, at least two.
        deviations: of the differences where seeds are paired (one), or of each configuration's runs (two).
        level: one minus the error allowed: of a comparison in a family of m, 1 - 0.05/m.
    """
    squares = np.square(deviations)
    freedom = (seeds - 1) * float(squares.sum() ** 2 / np.square(squares).sum())
    shift = abs(difference) * np.sqrt(seeds / squares.sum())
    limit = t_quantile((1 + level) / 2, freedom)
    wrong_side = np.nan_to_num(nctdtr(freedom, shift, -limit))  # not a number in places where it is nothing
    return float(1 - nctdtr(freedom, shift, limit) + wrong_side)


def seeds_to_settle(difference: float, deviations: Sequence[float], level: float = LEVEL) -> int | None:
    """The fewest seeds that settle a difference of this size `POWER` of the time; None beyond 1,000.

    Takes the deviations to be known. From three seeds they are not: one time in five a deviation of three is
    half of the true one or less, and the number of seeds is then a quarter.

    Args: as for `power`.
    """
    if not difference or not any(deviations):
        return None
    low, high = 1, MOST_SEEDS  # fewer than two seeds settle nothing
    if power(high, difference, deviations, level) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle, difference, deviations, level) < POWER:
            low = middle
        else:
            high = middle
    return high
