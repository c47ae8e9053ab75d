"""Means and differences over seeds by Student's t: paired, by Welch, or with noise pooled.

All at 95%, and each by itself: what is looked at together is corrected by `analysis.stats.families`. That the
intervals hold is measured by `benchmarks/interval_coverage.py`, for skewed noise too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from scipy.special import stdtr, stdtrit

LEVEL = 0.95
ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference, its standard error, and the degrees of freedom from which that is known.

    Its interval is value ± t·error (Student 1908).
    """

    value: float
    error: float
    freedom: float

    @property
    def half_width(self) -> float:
        return t_quantile((1 + LEVEL) / 2, self.freedom) * self.error

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width

    @property
    def p(self) -> float | None:
        """How often chance alone brings a value at least so far from zero, on either side.

        None without spread: values that are all the same, as on a small dev set, do not show how far chance
        moves them.
        """
        if not self.error > 0:
            return None
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))


@dataclass(frozen=True)
class Noise:
    """The standard deviation of single runs of one configuration, and its degrees of freedom."""

    deviation: float
    freedom: int

    def between_runs(self) -> float:
        """The least significant difference of two single runs: t·s·√(1/1 + 1/1)."""
        return t_quantile((1 + LEVEL) / 2, self.freedom) * self.deviation * math.sqrt(2)

    def contrast(self, one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Estimate:
        """The mean of some configurations' means minus that of others'.

        Its standard error is s·√(Σ cᵢ²/nᵢ), cᵢ being the weight of a configuration's mean in the
        difference and nᵢ its runs.

        Args:
            one, other: for each configuration its values over seeds, at least one; none on both sides.
        """
        sides = ((one, 1 / len(one)), (other, -1 / len(other)))
        value = sum(weight * fmean(values) for side, weight in sides for values in side)
        squares = sum(weight**2 / len(values) for side, weight in sides for values in side)
        return Estimate(value, self.deviation * math.sqrt(squares), self.freedom)


def pooled(groups: Sequence[Sequence[float]]) -> Noise | None:
    """The deviation within groups, s² = Σ (nᵢ - 1) sᵢ² / Σ (nᵢ - 1); None where no group has two values.

    Takes the groups' spreads to be alike, which buys degrees of freedom where seeds are few.
    """
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return None
    squares = sum((len(group) - 1) * variance(group) for group in several)
    return Noise(math.sqrt(squares / freedom), freedom)


def mean_over_seeds(values: Sequence[float]) -> Estimate | None:
    """The mean of a configuration's values, with s/√n as its error; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, freedom = fmean(values), len(values) - 1
    squares = 0.0 if min(values) == max(values) else math.fsum((each - mean) ** 2 for each in values)
    return Estimate(mean, math.sqrt(squares / freedom / len(values)), freedom)


def paired_difference(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """The mean over shared seeds of one minus other; None for fewer than two shared seeds.

    What a seed does to both alike (the order of the examples, where the heads start) cancels.

    Args:
        one, other: values by seed.
    """
    shared = sorted(one.keys() & other.keys())
    found = mean_over_seeds([one[seed] - other[seed] for seed in shared])
    if found is None or found.error > ROUNDING * max(
        abs(each[seed]) for each in (one, other) for seed in shared
    ):
        return found
    return replace(found, error=0.0)  # differences that are the same but for rounding


def welch_difference(one: Sequence[float], other: Sequence[float]) -> Estimate | None:
    """The difference of two means whose spreads may differ (Welch 1947); None with one value on a side."""
    sides = [mean_over_seeds(one), mean_over_seeds(other)]
    if sides[0] is None or sides[1] is None:
        return None
    first, second = sides[0], sides[1]
    squares = first.error**2 + second.error**2
    spread = first.error**4 / first.freedom + second.error**4 / second.freedom
    freedom = squares**2 / spread if spread else first.freedom + second.freedom
    return Estimate(first.value - second.value, math.sqrt(squares), freedom)


def t_quantile(probability: float, freedom: float) -> float:
    """Where Student's t distribution function reaches the probability."""
    return float(stdtrit(freedom, probability))
