"""Almost stochastic order: how far one's runs are from beating the other's at every quantile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from analysis.stats.estimates import LEVEL

RESAMPLES = 1000
THRESHOLD = 0.1
"""Below it a bound counts as almost dominance. At the 0.5 of Dror et al. equal configurations come out so one
time in five with ten runs, at 0.2 still 6% of the time with five (`benchmarks/interval_coverage.py`)."""
LEAST_RUNS = 5
"""With three, equal configurations come out as dominant 8% of the time at that threshold, too."""


@dataclass(frozen=True)
class StochasticOrder:
    """How far one is from being stochastically larger than the other.

    Attributes:
        violation: ε between 0 (at least as large at every quantile) and 1 (never larger), estimated.
        bound: what ε stays below with 95% confidence.
        runs: of the configuration with fewer.
    """

    violation: float
    bound: float
    runs: int

    @property
    def dominates(self) -> bool:
        """Whether it is almost stochastically larger; never with fewer than five runs."""
        return self.runs >= LEAST_RUNS and self.bound < THRESHOLD


def almost_stochastic_order(
    one: Sequence[float], other: Sequence[float], resamples: int = RESAMPLES, seed: int = 0
) -> StochasticOrder:
    """Whether one is almost stochastically larger than other (del Barrio et al. 2018; Dror et al. 2019).

    ε is the share of ∫(F⁻¹(t) - G⁻¹(t))² dt where F⁻¹(t) < G⁻¹(t), F being the distribution of one; ½ where
    the two are the same. Its bound is ε + z·σ·√((n + m)/(n·m)), σ being the bootstrap's deviation of
    √(n·m/(n + m))·(ε* - ε): Dror et al. 2019, §4.

    Args:
        one, other: values over runs, more is better; at least two each.

    Raises:
        ValueError: fewer than two values.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(
            f"almost stochastic order: expected two runs or more, got {len(one)} and {len(other)}"
        )
    generator = np.random.default_rng(seed)
    first, second = np.sort(np.asarray(one, float)), np.sort(np.asarray(other, float))
    violation = float(_violation(first[None], second[None])[0])
    draws = [
        np.sort(side[generator.integers(len(side), size=(resamples, len(side)))], axis=1)
        for side in (first, second)
    ]
    deviation = float(np.std(_violation(*draws)))
    bound = violation + float(ndtri(LEVEL)) * deviation
    return StochasticOrder(violation, min(1.0, max(0.0, bound)), min(len(one), len(other)))


def _violation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """ε of sorted values, exactly, as quantile functions are steps. [resamples, n and m] → [resamples]"""
    n, m = one.shape[1], other.shape[1]
    whole = math.lcm(n, m)
    ends = np.union1d(np.arange(1, n + 1) * (whole // n), np.arange(1, m + 1) * (whole // m))
    lengths = np.diff(ends, prepend=0) / whole
    at_one, at_other = (ends - 1) // (whole // n), (ends - 1) // (whole // m)
    difference = one[:, at_one] - other[:, at_other]
    squares = lengths * difference**2
    total = squares.sum(axis=1)
    against = np.where(difference < 0, squares, 0.0).sum(axis=1)
    share: np.ndarray = np.divide(against, total, out=np.full(len(total), 0.5), where=total > 0)
    return share
